//! Differential equations with known solutions: for each its points, its residuals and what the error is measured against.

mod burgers;
mod convection;
mod heat_1d;
mod poisson_2d;
mod poisson_5d;

use osculant::data::{Dataset, Points, Targets};
use osculant::graph::Tensor;
use osculant::nn::{Activation, DataShape, Init, Model, Scope, TargetShape};

pub(crate) use burgers::BURGERS;
pub(crate) use convection::CONVECTION;
pub(crate) use heat_1d::HEAT_1D;
pub(crate) use poisson_2d::POISSON_2D;
pub(crate) use poisson_5d::POISSON_5D;

/// A differential equation.
pub(crate) struct Field {
    /// The name on the command line.
    pub(crate) name: &'static str,
    /// Equation, solution and network, for reports.
    pub(crate) sentence: &'static str,
    /// Coordinates of a point.
    dimensions: usize,
    /// Whether every step has points of its own.
    pub(crate) resampled: bool,
    /// Where the equation and its conditions are asked to hold.
    points: fn() -> osculant::Result<Points>,
    /// The network's solution at points `[rows, dimensions]`.
    network: for<'b> fn(&Scope<'b>, Tensor<'b>) -> Tensor<'b>,
    /// From points and a solution `[rows, 1]` there, for each term of the points its residuals, `[rows, 1]`.
    residuals: for<'b> fn(&Scope<'b>, Tensor<'b>, Tensor<'b>) -> Vec<Tensor<'b>>,
    /// What the solution is at a point.
    solution: fn(&[f64]) -> f64,
    /// Coordinates of the points where the error is measured, one point after another.
    test: fn() -> osculant::Result<Vec<f64>>,
}

impl std::fmt::Debug for Field {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// The rows of a term, for its loss.
#[derive(Clone, Debug)]
pub(crate) struct TermRows {
    pub(crate) name: String,
    pub(crate) weight: f64,
    pub(crate) rows: Dataset,
}

impl Field {
    /// The points of a run by a seed, where steps have their own; else all runs have those of seed 0.
    pub(crate) fn points(&self, seed: u64) -> osculant::Result<Points> {
        Ok((self.points)()?.with_seed(seed))
    }

    /// Points as rows of the model: their coordinates, a column for a known solution, and for a label their term, of which the error of the
    /// solution is the last.
    pub(crate) fn rows(&self, points: &Dataset) -> osculant::Result<Dataset> {
        let batch = points.full_batch();
        let Targets::Classes { labels, classes } = batch.targets else {
            return Ok(points.clone());
        };
        let count = points.len() as f32;
        let rows = points.features().chunks(self.dimensions);
        let features = rows.flat_map(|point| point.iter().copied().chain([0.0]));
        let weights = batch.weights.iter().map(|weight| weight * count).collect();
        let classes = classes + 1;
        let targets = Targets::Classes { labels, classes };
        Dataset::new(self.name, features.collect(), self.dimensions + 1, targets)?
            .with_weights(weights)
    }

    /// The terms of these rows, each as a data set.
    pub(crate) fn terms(&self, rows: &Dataset) -> osculant::Result<Vec<TermRows>> {
        let mut first = 0;
        let points = (self.points)()?;
        let terms = points.terms().iter().map(|term| {
            let places: Vec<usize> = (first..first + term.points).collect();
            first += term.points;
            Ok(TermRows {
                name: term.name.clone(),
                weight: f64::from(term.weight),
                rows: rows.subset(&places)?.with_weights(vec![1.0; term.points])?,
            })
        });
        terms.collect()
    }

    /// The rows of the error, and the mean square of the solution there.
    pub(crate) fn test(&self) -> osculant::Result<(Dataset, f64)> {
        let points = (self.test)()?;
        let points: Vec<&[f64]> = points.chunks(self.dimensions).collect();
        let values: Vec<f64> = points.iter().map(|point| (self.solution)(point)).collect();
        let features = points.iter().zip(&values);
        let features =
            features.flat_map(|(point, value)| point.iter().chain([value]).map(|&x| x as f32));
        let classes = (self.points)()?.terms().len() + 1;
        let targets = Targets::Classes {
            labels: vec![(classes - 1) as u32; points.len()],
            classes,
        };
        let rows = Dataset::new(self.name, features.collect(), self.dimensions + 1, targets)?;
        let squares = values.iter().map(|value| value * value).sum::<f64>();
        Ok((rows, squares / values.len() as f64))
    }

    /// The network with the residuals of all terms, and of the solution.
    pub(crate) fn model(&'static self, data: &Dataset) -> Model {
        self.model_of(data, self.network)
    }

    /// The same of another solution.
    fn model_of(
        &'static self,
        data: &Dataset,
        solution: for<'b> fn(&Scope<'b>, Tensor<'b>) -> Tensor<'b>,
    ) -> Model {
        let classes = match data.targets() {
            Targets::Classes { classes, .. } => *classes,
            _ => 0,
        };
        let shape = DataShape {
            features: self.dimensions + 1,
            targets: TargetShape::Classes(classes),
        };
        Model::least_squares(shape, move |scope| {
            let rows = scope.rows();
            let all = scope.features();
            let x = all.slice(&[0, 0], &[rows, self.dimensions]);
            let known = all.slice(&[0, self.dimensions], &[rows, 1]);
            let u = solution(scope, x);
            let mut residuals = (self.residuals)(scope, x, u);
            residuals.push(u - known);
            scope.by_term(&residuals)
        })
    }
}

/// A dense network with tanh and one output.
fn network<'b>(scope: &Scope<'b>, x: Tensor<'b>, hidden: &[usize]) -> Tensor<'b> {
    let layers = hidden.iter().enumerate();
    let h = layers.fold(x, |h, (layer, &units)| {
        let name = format!("dense{layer}");
        Activation::Tanh.apply(scope.dense(&name, h, units, Init::Glorot))
    });
    scope.dense(&format!("dense{}", hidden.len()), h, 1, Init::Glorot)
}

/// A coordinate, `[rows, 1]`.
fn column<'b>(scope: &Scope<'b>, x: Tensor<'b>, axis: usize) -> Tensor<'b> {
    x.slice(&[0, axis], &[scope.rows(), 1])
}

/// A grid of `counts` points in a rectangle, the middles of equal cells.
fn grid(sides: [[f64; 2]; 2], counts: [usize; 2]) -> Vec<f64> {
    let at = |axis: usize, i: usize| {
        let [low, high] = sides[axis];
        low + (high - low) * (i as f64 + 0.5) / counts[axis] as f64
    };
    let points = (0..counts[0]).flat_map(|i| (0..counts[1]).map(move |j| (i, j)));
    points.flat_map(|(i, j)| [at(0, i), at(1, j)]).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use osculant::graph::twin::{Leaves, evaluate};

    use super::*;

    type Solution = for<'b> fn(&Scope<'b>, Tensor<'b>) -> Tensor<'b>;

    const PI: f32 = std::f32::consts::PI;

    /// The solutions as graphs; that of Burgers' equation is none.
    fn exact() -> [(&'static Field, Solution); 4] {
        [
            (&POISSON_2D, |scope, x| {
                (column(scope, x, 0) * PI).sin() * (column(scope, x, 1) * PI).sin()
            }),
            (&POISSON_5D, |_, x| (x * PI).cos().sum(&[1])),
            (&HEAT_1D, |scope, x| {
                let decay = (column(scope, x, 0) * (-0.25 * PI * PI)).exp();
                decay * (column(scope, x, 1) * PI).sin()
            }),
            (&CONVECTION, |scope, x| {
                (column(scope, x, 1) - column(scope, x, 0) * 40.0).sin()
            }),
        ]
    }

    /// The largest loss of these rows.
    fn largest(field: &'static Field, rows: &Dataset, solution: Solution) -> f64 {
        let batch = rows.full_batch();
        let traced = field.model_of(rows, solution).trace(batch.len()).unwrap();
        let labels = match batch.targets {
            Targets::Classes { labels, .. } => labels,
            _ => Vec::new(),
        };
        let leaves = Leaves {
            parameters: Vec::new(),
            inputs: vec![
                batch.features.iter().map(|&x| f64::from(x)).collect(),
                labels.iter().map(|&label| f64::from(label)).collect(),
            ],
            directions: Vec::new(),
        };
        let losses = evaluate(&traced.graph, &leaves, &[traced.losses])
            .unwrap()
            .concat();
        losses.into_iter().fold(0.0, f64::max)
    }

    /// Equations, conditions and the errors at the test points are all zero for the solution, and for no other function.
    #[test]
    fn solutions_have_no_residuals() {
        for (field, solution) in exact() {
            let train = field
                .rows(&field.points(1).unwrap().draw(0).unwrap())
                .unwrap();
            let (test, mean_square) = field.test().unwrap();
            assert!(
                mean_square > 0.1 && mean_square < 3.0,
                "{field:?}: {mean_square}"
            );
            // Squares of what constants in f32 leave of pi^2 and 40.
            assert!(largest(field, &train, solution) < 1e-9, "{field:?}");
            assert!(largest(field, &test, solution) < 1e-9, "{field:?}");
            for term in field.terms(&train).unwrap() {
                let zero: Solution = |scope, x| column(scope, x, 0) * 0.25 + 0.5;
                let loss = largest(field, &term.rows, zero);
                assert!(loss > 1e-2, "{field:?}, {}: {loss}", term.name);
            }
        }
    }

    #[test]
    fn rows_of_all_problems_fit_their_networks() {
        for field in [&POISSON_2D, &POISSON_5D, &HEAT_1D, &BURGERS, &CONVECTION] {
            let train = field
                .rows(&field.points(0).unwrap().draw(0).unwrap())
                .unwrap();
            let terms = field.terms(&train).unwrap();
            assert_eq!(
                terms.iter().map(|term| term.rows.len()).sum::<usize>(),
                train.len()
            );
            let weights: f64 = terms.iter().map(|term| term.weight).sum();
            assert!((train.full_batch().total_weight() - weights).abs() < 1e-3);
            field.model(&train).trace(3).unwrap();
        }
    }
}
