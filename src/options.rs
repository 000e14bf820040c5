//! Option structs: each field says its documentation, setter, default and range once.

use std::fmt::Debug;
use std::ops::RangeBounds;

use crate::error::{Error, Result};

/// Declares an option struct with its `Default`, a setter for every field, and `validate`.
///
/// ```text
/// options! {
///     /// Settings of the method.
///     pub struct MethodOptions in errors "method" {
///         /// What the field is.
///         field(with_field): f64 = 0.5, in 0.0..1.0 => "0 or more, below 1";
///         /// What the other is; of any value.
///         other(with_other): bool = true;
///     } together Self::check_together
/// }
/// ```
///
/// A range is what `RangeBounds` takes, with words for it that end "allowed is ..". Both are optional, as are the words that precede the
/// names of fields in errors, and a function for what no range of one field says.
macro_rules! options {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident $(in errors $within:literal)? {
            $(
                $(#[doc = $doc:expr])+
                $field:ident($setter:ident): $type:ty = $default:expr $(, in $range:expr => $allowed:literal)?;
            )+
        } $(together $together:path)?
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[doc = $doc])+
                #[doc = concat!(" Default `", stringify!($default), "`" $(, "; allowed is ", $allowed)?, ".")]
                pub $field: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),+ }
            }
        }

        impl $name {
            $(
                #[doc = concat!(" Sets `", stringify!($field), "`:")]
                $(#[doc = $doc])+
                #[doc = concat!(" Default `", stringify!($default), "`" $(, "; allowed is ", $allowed)?, ".")]
                #[must_use]
                pub fn $setter(mut self, $field: $type) -> Self {
                    self.$field = $field;
                    self
                }
            )+

            /// Checks the ranges, and whether the options go together.
            ///
            /// # Errors
            /// [`Error::Option`](crate::Error::Option) naming the option and what is allowed.
            pub fn validate(&self) -> $crate::Result<()> {
                let within = concat!($($within, " ")?);
                $($(
                    $crate::options::check_range(
                        &format!("{within}{}", stringify!($field)), &self.$field, $range, $allowed,
                    )?;
                )?)+
                $($together(self)?;)?
                Ok(())
            }
        }
    };
}
pub(crate) use options;

/// Refuses a value out of its range.
pub(crate) fn check_range<T: Debug + PartialOrd>(
    option: &str,
    value: &T,
    range: impl RangeBounds<T>,
    allowed: &str,
) -> Result<()> {
    let message = format!("{value:?} is out of range; allowed is {allowed}");
    require(range.contains(value), option, message)
}

/// Refuses an option unless a condition holds; the message says why and what to do.
pub(crate) fn require(holds: bool, option: &str, message: impl Into<String>) -> Result<()> {
    if holds {
        return Ok(());
    }
    Err(Error::Option {
        option: option.into(),
        message: message.into(),
    })
}
