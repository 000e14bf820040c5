//! The range of scales in which solvers that square products can work, and what they say outside of it.

use crate::error::{Error, Result};

/// What to do where loss and gradient are finite and what is made of them is not, or vanishes.
pub(crate) const OUT_OF_SCALE: &str = "The scale of loss or curvature is outside the range of f32, which no damping cures: rescale the \
    loss, or the data (other units, or \
     standardised columns).";

/// Largest elements of products with a block of vectors of length about 1 per element: their squares, summed over 10^8 elements, and those
/// of elements 10^4 times smaller, are inside f32.
const PRODUCTS: std::ops::RangeInclusive<f32> = 1e-15..=1e15;

/// The error for products that are not finite.
pub(crate) fn not_finite_product() -> Error {
    Error::NotFinite {
        what: "a product with the curvature".into(),
        advice: "Check data and parameters; where both are finite, the scale of the loss is outside the range of f32: rescale the loss, \
            or the data.",
    }
}

/// Checks the bits of the largest element of a product, which is zero where the operator is.
///
/// # Errors
/// [`Error::NotFinite`], and [`Error::Unsupported`] outside of [`PRODUCTS`].
pub(super) fn check_products(largest: &[f32]) -> Result<()> {
    let largest = largest.first().copied().unwrap_or(0.0);
    if !largest.is_finite() {
        return Err(not_finite_product());
    }
    if largest == 0.0 || PRODUCTS.contains(&largest) {
        return Ok(());
    }
    Err(Error::Unsupported {
        what: format!(
            "a decomposition of a curvature whose products are as large as {largest:.1e}"
        ),
        message: format!(
            "squares of them are outside the range of f32, which serves for a scale of {:e} to {:e}: rescale the loss, or the data",
            PRODUCTS.start(),
            PRODUCTS.end()
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::check_products;

    #[test]
    fn products_out_of_range_name_the_scale() {
        for largest in [0.0, 1e-14, 1.0, 1e14] {
            assert!(check_products(&[largest]).is_ok());
        }
        for largest in [1e-16, 1e16, f32::INFINITY, f32::NAN] {
            let error = check_products(&[largest]).err().map(|e| e.to_string());
            assert!(error.is_some_and(|e| e.contains("scale")), "{largest}");
        }
    }
}
