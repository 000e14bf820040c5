//! All tests that need a device: a trial for each test and adapter, named `module::test [adapter]`, so that `cargo test --test gpu -- krylov::` runs those of one file.

#[macro_use]
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../reference/mod.rs"]
mod reference;

mod bad_input;
mod blocks;
mod conjugate_gradients;
mod debiased_sgd;
mod decoupled;
mod eigensolver;
mod fixtures;
mod krylov;
mod long_loops;
mod lowering;
mod matrix_products;
mod models;
mod optimizers;
mod primitives;
mod saddle_free_newton;

use std::process::ExitCode;

fn main() -> ExitCode {
    harness::main(
        vec![
            ("bad_input", bad_input::tests()),
            ("blocks", blocks::tests()),
            ("conjugate_gradients", conjugate_gradients::tests()),
            ("debiased_sgd", debiased_sgd::tests()),
            ("decoupled", decoupled::tests()),
            ("eigensolver", eigensolver::tests()),
            ("fixtures", fixtures::tests()),
            ("krylov", krylov::tests()),
            ("long_loops", long_loops::tests()),
            ("lowering", lowering::tests()),
            ("matrix_products", matrix_products::tests()),
            ("models", models::tests()),
            ("optimizers", optimizers::tests()),
            ("primitives", primitives::tests()),
            ("saddle_free_newton", saddle_free_newton::tests()),
        ],
        &[],
    )
}
