//! What the page in `web/page` calls: training a network on the digits a step at a time ([`training`]), and making of what a person draws
//! a picture like those of the data ([`drawing`]). Both compile everywhere; the faces for JavaScript (`page.rs`) in a browser.

pub mod drawing;
#[cfg(target_arch = "wasm32")]
pub mod page;
pub mod training;
