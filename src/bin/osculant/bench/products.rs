//! Matrix products, with the kernel that programs take for them.

use osculant::gpu::Gpu;
use osculant::kernels::autotune::{Bench, Product};
use osculant::kernels::tuning::Layout;

use super::device::rate;
use super::timing::{Effort, Figure, Times};

/// Rows, columns, terms, layout: squares, and the products of a layer `784 -> 128 -> 10` with 256 examples.
const PRODUCTS: [(usize, usize, usize, Layout); 10] = [
    (512, 512, 512, Layout::Nn),
    (512, 512, 512, Layout::Nt),
    (512, 512, 512, Layout::Tn),
    (1024, 1024, 1024, Layout::Nn),
    (1024, 1024, 1024, Layout::Nt),
    (1024, 1024, 1024, Layout::Tn),
    (256, 128, 784, Layout::Nn),
    (784, 128, 256, Layout::Tn),
    (256, 784, 128, Layout::Nt),
    (256, 10, 128, Layout::Nn),
];

/// What was measured of a product.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    /// The product.
    pub(crate) product: Product,
    /// Name of the kernel.
    pub(crate) family: String,
    /// Speed.
    pub(crate) gflops: Figure,
}

impl Measured {
    /// The layout as BLAS names it.
    pub(crate) fn transpose(&self) -> String {
        self.product.layout.to_string().to_uppercase()
    }
}

/// Products with more terms are left out of a quick run: software adapters take half a minute to compile a kernel for one.
const QUICK_TERMS: usize = 1 << 28;

/// Times all of them; `next` hears which comes next.
pub(crate) fn measure(
    gpu: &Gpu,
    effort: Effort,
    quick: bool,
    mut next: impl FnMut(&str),
) -> osculant::Result<Vec<Measured>> {
    let mut all = Vec::new();
    for (m, n, k, layout) in PRODUCTS {
        if quick && m * n * k > QUICK_TERMS {
            continue;
        }
        let product = Product {
            batch: 1,
            m,
            n,
            k,
            layout,
        };
        let family = product.chosen(gpu);
        next(&format!("matrix product {m}x{n}x{k} {layout}"));
        let (recording, repeats) = Bench::new(gpu, product)?.record(gpu, family)?;
        let times = Times::take(gpu, &[&recording], effort)?;
        all.push(Measured {
            product,
            family: family.to_string(),
            gflops: rate(times.seconds(0), product.flops() * repeats as f64),
        });
    }
    Ok(all)
}
