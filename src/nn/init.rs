//! Initial values of parameters, seeded.

use rand_distr::{Distribution, Normal, Uniform};

use crate::error::{Error, Result};
use crate::random::Philox;

/// The stream of the first parameter; streams below belong to the data (see [`crate::random`]).
const FIRST_STREAM: u64 = 1 << 33;

/// A distribution of initial values. For a matrix `[inputs, outputs]`, fan-in is `inputs` and fan-out `outputs`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Init {
    /// All equal.
    Constant(f32),
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform in `+-sqrt(6 / (fan_in + fan_out))` (Glorot and Bengio 2010): for tanh and sigmoid.
    Glorot,
    /// Normal with standard deviation `sqrt(2 / fan_in)` (He et al. 2015): for relu and its kin.
    He,
    /// Normal with standard deviation `sqrt(1 / fan_in)` (LeCun et al. 1998).
    LeCun,
}

impl Init {
    /// Values for the parameter with this index and shape. They depend on nothing but the arguments.
    ///
    /// # Errors
    /// [`Error::Option`] for a standard deviation that is negative or not finite.
    pub fn values(self, shape: &[usize], seed: u64, index: usize) -> Result<Vec<f32>> {
        let count: usize = shape.iter().product();
        let (fan_in, fan_out) = match *shape {
            [] => (1, 1),
            [n] => (n, n),
            [.., a, b] => (
                count / b.max(1),
                if shape.len() == 2 {
                    b
                } else {
                    count / a.max(1)
                },
            ),
        };
        let mut random = Philox::new(seed, FIRST_STREAM + index as u64);
        let refuse = |e: String| Error::Option {
            option: "initialiser".into(),
            message: format!("{self:?}: {e}"),
        };
        let normal = |deviation: f64, random: &mut Philox| -> Result<Vec<f32>> {
            if deviation < 0.0 {
                return Err(refuse("the standard deviation is negative".into()));
            }
            let distribution = Normal::new(0.0, deviation).map_err(|e| refuse(e.to_string()))?;
            Ok((0..count)
                .map(|_| distribution.sample(random) as f32)
                .collect())
        };
        match self {
            Init::Constant(value) => Ok(vec![value; count]),
            Init::Normal(deviation) => normal(f64::from(deviation), &mut random),
            Init::Glorot => {
                let bound = (6.0 / (fan_in + fan_out) as f64).sqrt();
                let distribution =
                    Uniform::new(-bound, bound).map_err(|e| refuse(e.to_string()))?;
                Ok((0..count)
                    .map(|_| distribution.sample(&mut random) as f32)
                    .collect())
            }
            Init::He => normal((2.0 / fan_in as f64).sqrt(), &mut random),
            Init::LeCun => normal((1.0 / fan_in as f64).sqrt(), &mut random),
        }
    }
}
