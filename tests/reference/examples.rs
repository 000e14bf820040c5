//! What each example of a batch has, in the f64 twin, and the quantities that follow from that by their definitions.

use osculant::Result;
use osculant::data::{Batch, Targets};
use osculant::graph::kronecker::{Curvature, LayerFactors, Sizes, factors};
use osculant::graph::per_example::{ExampleRows, gradient_rows, mixture_rows, root_rows};
use osculant::graph::twin::{Leaves, evaluate};
use osculant::graph::{Graph, NodeId};
use osculant::nn::Model;
use osculant::objective::Quantity;

use super::{Tensors, dot, wide};

/// The rows of all examples: of a list for each parameter the row `c n + example`.
struct Rows {
    formed: Tensors,
    columns: usize,
    factors: Tensors,
}

/// A batch, example by example.
pub(crate) struct Examples {
    weights: Vec<f64>,
    gradients: Rows,
    root: Rows,
    mixture: Rows,
}

impl Examples {
    /// Of a model at parameters, with the signs of one mixture of each example's columns.
    pub(crate) fn new(
        model: &Model,
        batch: &Batch,
        theta: &Tensors,
        signs: &[f64],
    ) -> Result<Self> {
        let (traced, probe) = model.trace_with_probe(batch.len())?;
        let mut graph = traced.graph;
        let parameters: Vec<NodeId> = graph.parameters().iter().map(|p| p.node).collect();
        let inputs = graph
            .inputs()
            .iter()
            .map(|leaf| match (leaf.name.as_str(), &batch.targets) {
                ("targets", Targets::Classes { labels, .. }) => {
                    labels.iter().copied().map(f64::from).collect()
                }
                ("targets", Targets::Values { values, .. }) => wide(values),
                _ => wide(&batch.features),
            });
        let weights = wide(&batch.weights);
        let total: f64 = weights.iter().sum();
        let mut leaves = Leaves {
            parameters: theta.clone(),
            inputs: inputs.collect(),
            directions: Vec::new(),
        };
        let shares = graph.direction(&[batch.len()]);
        leaves
            .directions
            .push((shares, weights.iter().map(|w| w / total).collect()));
        let of = |graph: &mut Graph, rows: Vec<ExampleRows>, leaves: &Leaves| -> Result<Rows> {
            let formed: Vec<NodeId> = rows
                .iter()
                .map(|rows| rows.formed(graph))
                .collect::<Result<_>>()?;
            let sizes = Sizes::up_to(usize::MAX, 0);
            let curvatures = Curvature::of_rows(&rows);
            // Those of a single example are not known.
            let layers =
                factors(graph, &curvatures, &parameters, shares, sizes).unwrap_or_default();
            let sides = layers.iter().flat_map(LayerFactors::nodes);
            let sides: Vec<NodeId> = sides.copied().collect();
            Ok(Rows {
                formed: evaluate(graph, leaves, &formed)?,
                columns: rows.first().map_or(1, ExampleRows::columns),
                factors: evaluate(graph, leaves, &sides)?,
            })
        };
        let parameters = parameters.clone();
        let rows = gradient_rows(&mut graph, traced.losses, &parameters)?;
        let gradients = of(&mut graph, rows, &leaves)?;
        let probe = probe.ok_or(osculant::Error::Unsupported {
            what: "this model".into(),
            message: "has no probe".into(),
        })?;
        let root = (traced.outputs, probe.root, probe.signs);
        let rows = root_rows(&mut graph, root, &parameters)?;
        let root = of(&mut graph, rows, &leaves)?;
        leaves.directions.push((probe.signs, signs.to_vec()));
        let rows = mixture_rows(&mut graph, (traced.outputs, probe.root), &parameters)?;
        let mixture = of(&mut graph, rows, &leaves)?;
        Ok(Self {
            weights,
            gradients,
            root,
            mixture,
        })
    }

    /// A quantity by its definition: one list for each of its tensors.
    pub(crate) fn quantity(&self, quantity: Quantity) -> Tensors {
        let w = &self.weights;
        let total: f64 = w.iter().sum();
        let p: Vec<f64> = w.iter().map(|w| w / total).collect();
        let squares: Vec<f64> = w.iter().map(|w| w * w).collect();
        let roots: Vec<f64> = w.iter().map(|w| w.sqrt()).collect();
        match quantity {
            Quantity::Gradient => self.gradients.sums(w, |g| g),
            Quantity::PerExampleGradients => self.gradients.scaled(w),
            Quantity::SquaredNorms => {
                let own = self.gradients.all(w);
                own.iter()
                    .map(|rows| rows.iter().map(|g| dot(g, g)).collect())
                    .collect()
            }
            Quantity::InnerProducts => self
                .gradients
                .all(w)
                .iter()
                .map(|rows| products(rows))
                .collect(),
            Quantity::SquareSum => self.gradients.sums(&squares, |g| g * g),
            Quantity::SecondMoment => self.gradients.sums(&p, |g| g * g),
            Quantity::Variance => {
                let means = self.gradients.sums(&p, |g| g);
                let ones = vec![1.0; w.len()];
                let off = self
                    .gradients
                    .all(&ones)
                    .into_iter()
                    .zip(&means)
                    .map(|(rows, mean)| {
                        let off = |(g, m): (&f64, &f64)| (g - m).powi(2);
                        let each = rows.iter().map(|g| g.iter().zip(mean).map(off).collect());
                        summed(&each.collect::<Vec<Vec<f64>>>(), &p)
                    });
                off.collect()
            }
            Quantity::GaussNewtonDiagonal => self.root.sums(w, |v| v * v),
            Quantity::SampledGaussNewtonDiagonal => self.mixture.sums(w, |v| v * v),
            Quantity::PerExampleGaussNewtonDiagonals => self.root.diagonals(w),
            Quantity::SampledPerExampleGaussNewtonDiagonals => self.mixture.diagonals(w),
            Quantity::GaussNewtonRoot => self.root.scaled(&roots),
            Quantity::SampledGaussNewtonRoot => self.mixture.scaled(&roots),
            Quantity::GaussNewtonGram => {
                let each = self.root.all(&roots);
                let each = each.iter().map(|rows| products(rows));
                vec![
                    each.reduce(|a, b| super::add(&a, 1.0, &b))
                        .unwrap_or_default(),
                ]
            }
            Quantity::KroneckerFactors => self.root.factors.clone(),
            Quantity::SampledKroneckerFactors => self.mixture.factors.clone(),
            Quantity::EmpiricalKroneckerFactors => self.gradients.factors.clone(),
            other => unreachable!("{other:?} has no definition here"),
        }
    }
}

fn products(rows: &[Vec<f64>]) -> Vec<f64> {
    rows.iter()
        .flat_map(|a| rows.iter().map(|b| dot(a, b)))
        .collect()
}

/// `sum_n weights_(n mod examples) row_n`
fn summed(rows: &[Vec<f64>], weights: &[f64]) -> Vec<f64> {
    let mut sum = vec![0.0; rows[0].len()];
    for (row, weight) in rows.iter().zip(weights.iter().cycle()) {
        sum.iter_mut().zip(row).for_each(|(s, x)| *s += weight * x);
    }
    sum
}

impl Rows {
    /// Of each parameter all rows, times factors of their examples.
    fn all(&self, factors: &[f64]) -> Vec<Vec<Vec<f64>>> {
        let of = |part: &Vec<f64>| {
            let width = part.len() / (self.columns * factors.len());
            let rows = part.chunks(width).zip(factors.iter().cycle());
            rows.map(|(row, s)| row.iter().map(|x| s * x).collect())
                .collect()
        };
        self.formed.iter().map(of).collect()
    }

    fn scaled(&self, factors: &[f64]) -> Tensors {
        self.all(factors).iter().map(|rows| rows.concat()).collect()
    }

    fn sums(&self, weights: &[f64], f: impl Fn(f64) -> f64) -> Tensors {
        let ones = vec![1.0; weights.len()];
        let each = self.all(&ones).into_iter().map(|rows| {
            let rows: Vec<Vec<f64>> = rows
                .iter()
                .map(|row| row.iter().map(|&x| f(x)).collect())
                .collect();
            summed(&rows, weights)
        });
        each.collect()
    }

    fn diagonals(&self, weights: &[f64]) -> Tensors {
        let examples = weights.len();
        let of = |rows: &Vec<Vec<f64>>| {
            let of = |n: usize| -> Vec<f64> {
                let own = rows.iter().skip(n).step_by(examples);
                let squares: Vec<Vec<f64>> =
                    own.map(|v| v.iter().map(|x| x * x).collect()).collect();
                summed(&squares, &[weights[n]])
            };
            (0..examples).flat_map(of).collect()
        };
        self.all(&vec![1.0; examples]).iter().map(of).collect()
    }
}
