//! Solvers over a linear operator on the device.

mod basis;
mod cg_options;
mod cg_report;
mod companion;
mod conjugate_gradients;
mod eigen_options;
mod lanczos;
mod low_rank;
mod nystrom;
mod operator;
mod probe;
mod product;
mod randomized;
mod range_finder;
mod sandwich;
mod scale;
mod submissions;

pub use crate::kernels::blocks::Sketch;
pub use basis::{Basis, Storage};
pub use cg_options::CgOptions;
pub use cg_report::{CgReport, Stop};
pub use companion::{Companion, LineStep};
pub use conjugate_gradients::ConjugateGradients;
pub(crate) use conjugate_gradients::{Afterword, System};
pub use eigen_options::EigenOptions;
pub use lanczos::{Lanczos, Start, Tridiagonal};
pub(crate) use low_rank::LowRank;
pub use nystrom::Nystrom;
pub use operator::{Operator, Places, Scalars};
pub use probe::Property;
pub use product::Product;
pub use randomized::{Eigenvalues, RandomizedEigensolver};
pub use range_finder::{RangeFinder, RangeOptions};
pub(crate) use sandwich::Sandwich;
pub(crate) use scale::OUT_OF_SCALE;
pub use submissions::Submissions;
