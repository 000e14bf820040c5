//! A kernel to be compiled.

/// A text with values for its `override` constants.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    /// The file in `shaders/`, or what a generated kernel does.
    pub(crate) family: String,
    /// What distinguishes it within its family.
    pub(crate) name: String,
    pub(crate) text: String,
    pub(crate) constants: Vec<(String, f64)>,
}
