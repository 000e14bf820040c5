//! How kernels load and store four neighbouring floats: `shaders/four.wgsl` or `shaders/four_wide.wgsl`.

use super::dot::Capabilities;

const PLAIN: &str = include_str!("../../shaders/four.wgsl");
const WIDE: &str = include_str!("../../shaders/four_wide.wgsl");

/// What defines `Four`, `floats` and `stored` for a device.
pub(crate) fn four(capabilities: &Capabilities) -> &'static str {
    if capabilities.wide_loads { WIDE } else { PLAIN }
}
