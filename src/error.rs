//! The one error type of the crate. Every variant says what went wrong and what to do about it.

/// Result with the crate's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong, with advice.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No adapter matches the request, or there is none at all.
    #[error("no wgpu adapter found{request}; adapters present: {present}. {hint}")]
    NoAdapter {
        /// What was asked for, beginning with a space, or empty.
        request: String,
        /// The adapters that exist, or "none".
        present: String,
        /// What to install or to change.
        hint: String,
    },
    /// The adapter refused to make a device.
    #[error("adapter '{adapter}' gave no device: {message}")]
    NoDevice {
        /// The adapter's name.
        adapter: String,
        /// What wgpu said.
        message: String,
    },
    /// The device is gone (driver reset, unplugged, watchdog); make a new `Gpu` and load the last checkpoint.
    #[error(
        "the GPU device was lost: {message}. Create a new Gpu and continue from the last checkpoint; if it happens again, use smaller \
            batches"
    )]
    DeviceLost {
        /// What the driver said.
        message: String,
    },
    /// The device has no memory left.
    #[error("out of device memory while allocating {what}: use a smaller batch or network")]
    OutOfMemory {
        /// What was being allocated.
        what: String,
    },
    /// The device did not finish in time. What was submitted goes on: the `Gpu` can be used again once it ends.
    #[error(
        "{what} was not finished after {seconds} s. If the work is long, use smaller batches or fewer iterations per submission, or wait \
            longer (AdapterOptions::with_timeout, Gpu::with_timeout, OSCULANT_TIMEOUT); if it should be short, the driver \
         hangs: update it, \
         or take another adapter"
    )]
    Timeout {
        /// What was waited for.
        what: String,
        /// How long.
        seconds: f64,
    },
    /// A request exceeds a limit of the device.
    #[error("{what} needs {needed}, but the device's limit {limit_name} is {limit}: {advice}")]
    OverLimit {
        /// What was asked for.
        what: String,
        /// The amount needed.
        needed: u64,
        /// Name of the limit, as wgpu spells it.
        limit_name: &'static str,
        /// The limit's value.
        limit: u64,
        /// What to do.
        advice: &'static str,
    },
    /// A shader or pipeline was refused by the driver or by wgpu's validation.
    #[error("shader '{label}' was refused: {message}\n{source_text}")]
    Shader {
        /// The shader's label.
        label: String,
        /// What wgpu said.
        message: String,
        /// The WGSL with line numbers.
        source_text: String,
    },
    /// wgpu refused a command; this is a defect of this crate or of a user's kernel.
    #[error("wgpu refused {what}: {message}")]
    Gpu {
        /// The operation.
        what: String,
        /// What wgpu said.
        message: String,
    },
    /// Shapes do not fit each other.
    #[error("{node}: {message}")]
    Shape {
        /// The node or argument, with its name and operation.
        node: String,
        /// The shapes, and what was expected.
        message: String,
    },
    /// A vector or buffer has the wrong length.
    #[error("{what} has length {found}, expected {expected}")]
    Length {
        /// Which argument.
        what: String,
        /// The length given.
        found: usize,
        /// The length needed.
        expected: usize,
    },
    /// Data that cannot be used: empty batch, label out of range, NaN, malformed file.
    #[error("bad data in {what}: {message}")]
    Data {
        /// The file, batch or argument.
        what: String,
        /// What is wrong and where.
        message: String,
    },
    /// An option outside its valid range, or an unknown name.
    #[error("option {option}: {message}")]
    Option {
        /// The option's name.
        option: String,
        /// What is wrong, and the valid values.
        message: String,
    },
    /// The requested quantity does not exist for this model.
    #[error("{what} is not available: {message}")]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why, and what to use instead.
        message: String,
    },
    /// A caller's product is not what solvers rely on.
    #[error(
        "the operator is not {property}: off by {found:.3e}, and rounding explains {allowed:.3e}. Look for randomness in the product, \
            state that changes \
         between products, an input that is overwritten, or terms that are not derivatives of one function"
    )]
    Operator {
        /// What it is not.
        property: crate::linalg::Property,
        /// How far off; for repeatability, the number of different elements.
        found: f64,
        /// What is allowed.
        allowed: f64,
    },
    /// A file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The operating system's error.
        source: std::io::Error,
    },
    /// The loss or a step is not finite; the parameters were left as they were.
    #[error("{what} is not finite; the parameters were left unchanged. {advice}")]
    NotFinite {
        /// Which quantity.
        what: String,
        /// What to try.
        advice: &'static str,
    },
}
