//! All tests that need a device: a trial for each test and adapter, named `module::test [adapter]`, so that `cargo test --test gpu --
//! krylov::` runs those of one file.

#[macro_use]
#[path = "../harness/mod.rs"]
mod harness;
#[path = "../reference/mod.rs"]
mod reference;

mod accumulated;
mod asynchronous;
mod bad_input;
mod blocks;
mod conjugate_gradients;
mod course;
mod debiased_sgd;
mod decoupled;
mod differences;
mod differential;
mod eigensolver;
mod engine;
mod finite_differences;
mod fixtures;
mod host_function;
mod hosted;
mod hundred_million;
mod kfac;
mod kfac_forms;
mod kronecker_newton;
mod krylov;
mod lbfgs;
mod levenberg_marquardt;
mod limits;
mod locate;
mod long_loops;
mod losses;
mod lowering;
mod matrix_formulas;
mod matrix_methods;
mod matrix_products;
mod models;
mod operators;
mod optimizers;
mod own_kernels;
mod own_outputs;
mod plans;
mod primitives;
mod recorded;
mod recorded_lrsfn;
mod resident;
mod saddle_free_newton;
mod second_objective;
mod segments;
mod spring;
mod statistics;
mod units;
mod weights;

use std::process::ExitCode;

use harness::{ExpectedFailure, OnSmallAdapters};

/// Four storage buffers are too few for conjugate gradients, which `limits::` shows to be refused.
const CG: &str = "conjugate gradients";

const ON_SMALL_ADAPTERS: OnSmallAdapters = OnSmallAdapters {
    // Programs are split only where there are four storage buffers: with eight the kernels of primitives and blocks are those of the whole
    // adapter.
    modules: &[
        ("bad_input", ""),
        ("blocks", "small-4"),
        ("eigensolver", ""),
        ("krylov", ""),
        ("limits", ""),
        ("lowering", ""),
        ("matrix_formulas", ""),
        ("optimizers", ""),
        ("primitives", "small-4"),
        ("resident", ""),
        ("statistics", "small-4"),
    ],
    needs_more: &[
        (
            "products_repeat_nothing_of",
            "small-4",
            "the kernels of a program with eight storage buffers, which it counts",
        ),
        (
            "grids_of_more_than_one_row",
            "small-",
            "bindings of 16 MB, and workgroups for them",
        ),
        ("conjugate_gradients_reach", "small-4", CG),
        ("cg_", "small-4", CG),
        ("batches_that_do_not_fit", "small-4", CG),
        ("theta_of_another_model", "small-4", CG),
        ("gauss_newton_of_a_loss", "small-4", CG),
        ("parameters_that_are_not_finite", "small-4", CG),
        ("solves_with_bad_arguments", "small-4", CG),
        ("states_that_do_not_fit", "small-4", CG),
        ("newton_", "small-4", CG),
        ("trust_region_leaves", "small-4", CG),
        ("preconditioned_newton", "small-4", CG),
        ("nystrom_newton", "small-4", CG),
        ("equal_seeds_give_equal_bits", "small-4", CG),
        ("a_restored_state_continues", "small-4", CG),
        ("state_of_another_method", "small-4", CG),
        ("readbacks_of_a_step", "small-4", CG),
        ("work_of_a_step", "small-4", CG),
    ],
};

/// Trials with the most kernels or the longest loops for an adapter that compiles them slowly, which it runs in `.ci/long` alone: each takes
/// it a quarter of a minute and more. SwiftShader takes ten times as long as llvmpipe for most kernels, and llvmpipe as long for products
/// in the registers of a subgroup, which SwiftShader does not have.
const COMPILE_MOST: [(&str, &[&str]); 2] = [
    ("SwiftShader", &SLOW_ON_SWIFTSHADER),
    (
        "llvmpipe",
        &[
            "blocks::dot_in_blocks_of_rows",
            "blocks::dot_in_other_blocks_of_rows",
            "blocks::dot_of_views",
            "blocks::dot_stored_and_transposed",
        ],
    ),
];

const SLOW_ON_SWIFTSHADER: [&str; 24] = [
    "a_failed_step_changes_nothing",
    "a_refused_step_changes_the_damping",
    "a_restored_state_goes_on_with_the_same_bits",
    "a_single_fold_is_newton_cg",
    "changes_of_the_loss_keep_their_digits",
    "conjugate_gradients_over_segments_are_those_of_f64",
    "damaged_and_foreign_states_are_refused",
    "differences_keep_their_digits",
    "gradients_of_300_000_rows",
    "groups_are_those_of_all_micro_batches",
    "groups_have_the_quadratics_of_their_examples",
    "it_trains_by_every_strategy",
    "its_numbers_are_those_of_the_whole_batch",
    "methods_make_the_same_steps",
    "methods_step_on_differences",
    "newton_steps_are_those_of_the_host",
    "nothing_waits_in_a_thousand_steps",
    "products_by_differences_are_near_exact_ones",
    "networks_of_the_problems_agree_with_the_twin",
    "products_keep_their_digits",
    "programs_go_with_their_vector",
    "readbacks_and_work_are_as_documented",
    "several_folds_are_one_side",
    "solves_over_segments_stop_where_those_of_one_stop",
];

/// Modules above matrix products, which have modules of their own: on this adapter they take the products that are compiled soonest.
const ABOVE_PRODUCTS: (&str, &[&str]) = (
    "llvmpipe",
    &[
        "accumulated",
        "asynchronous",
        "conjugate_gradients",
        "course",
        "debiased_sgd",
        "decoupled",
        "differences",
        "differential",
        "eigensolver",
        "engine",
        "finite_differences",
        "host_function",
        "hosted",
        "kfac",
        "kfac_forms",
        "kronecker_newton",
        "krylov",
        "lbfgs",
        "levenberg_marquardt",
        "locate",
        "losses",
        "matrix_formulas",
        "matrix_methods",
        "operators",
        "optimizers",
        "own_kernels",
        "own_outputs",
        "recorded",
        "recorded_lrsfn",
        "resident",
        "saddle_free_newton",
        "second_objective",
        "segments",
        "spring",
        "statistics",
        "units",
        "weights",
    ],
);

const EXPECTED_FAILURES: [ExpectedFailure; 0] = [];

fn main() -> ExitCode {
    harness::main(
        vec![
            ("accumulated", accumulated::tests()),
            ("asynchronous", asynchronous::tests()),
            ("bad_input", bad_input::tests()),
            ("blocks", blocks::tests()),
            ("conjugate_gradients", conjugate_gradients::tests()),
            ("course", course::tests()),
            ("debiased_sgd", debiased_sgd::tests()),
            ("decoupled", decoupled::tests()),
            ("differences", differences::tests()),
            ("differential", differential::tests()),
            ("eigensolver", eigensolver::tests()),
            ("engine", engine::tests()),
            ("finite_differences", finite_differences::tests()),
            ("fixtures", fixtures::tests()),
            ("host_function", host_function::tests()),
            ("hosted", hosted::tests()),
            ("hundred_million", hundred_million::tests()),
            ("kfac", kfac::tests()),
            ("kfac_forms", kfac_forms::tests()),
            ("kronecker_newton", kronecker_newton::tests()),
            ("krylov", krylov::tests()),
            ("lbfgs", lbfgs::tests()),
            ("levenberg_marquardt", levenberg_marquardt::tests()),
            ("limits", limits::tests()),
            ("locate", locate::tests()),
            ("losses", losses::tests()),
            ("long_loops", long_loops::tests()),
            ("lowering", lowering::tests()),
            ("matrix_formulas", matrix_formulas::tests()),
            ("matrix_methods", matrix_methods::tests()),
            ("matrix_products", matrix_products::tests()),
            ("models", models::tests()),
            ("operators", operators::tests()),
            ("optimizers", optimizers::tests()),
            ("own_kernels", own_kernels::tests()),
            ("own_outputs", own_outputs::tests()),
            ("plans", plans::tests()),
            ("primitives", primitives::tests()),
            ("recorded", recorded::tests()),
            ("recorded_lrsfn", recorded_lrsfn::tests()),
            ("resident", resident::tests()),
            ("saddle_free_newton", saddle_free_newton::tests()),
            ("units", units::tests()),
            ("second_objective", second_objective::tests()),
            ("segments", segments::tests()),
            ("spring", spring::tests()),
            ("statistics", statistics::tests()),
            ("weights", weights::tests()),
        ],
        &ON_SMALL_ADAPTERS,
        &COMPILE_MOST,
        &ABOVE_PRODUCTS,
        &EXPECTED_FAILURES,
    )
}
