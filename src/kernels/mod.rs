//! Kernels: one WGSL file per family in `shaders/`, one typed face per file here.
//!
//! A face checks shapes and limits and adds dispatches to a [`Recording`](crate::gpu::Recording). Nothing else in the crate names a
//! binding.

#[cfg(not(target_arch = "wasm32"))]
pub mod autotune;
pub(crate) mod blocks;
pub(crate) mod cg;
pub mod dot;
pub(crate) mod draw_rows;
pub(crate) mod expression;
pub(crate) mod finite;
pub(crate) mod four;
pub mod function;
pub(crate) mod gather;
pub(crate) mod gather_rows;
pub(crate) mod generated;
pub(crate) mod half;
pub(crate) mod loops;
pub(crate) mod philox;
pub mod requirements;
#[cfg(test)]
mod rows_tests;
pub(crate) mod spectrum;
pub(crate) mod step;
pub(crate) mod store;
pub(crate) mod template;
pub mod tuning;
#[cfg(test)]
mod twins;
pub mod vector;
