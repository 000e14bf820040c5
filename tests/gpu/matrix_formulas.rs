//! Muon, SOAP and Shampoo: every step against the formula in f64, from the state before it.

use nalgebra::{DMatrix, SymmetricEigen};

use crate::harness::{GpuTest, Outcome};
use crate::reference::{Reference, batch_for, cut, draw, vector, wide_all};
use osculant::gpu::Gpu;
use osculant::nn::{Activation, DataShape, Loss, Model, Sequential, TargetShape};
use osculant::objective::GraphObjective;
use osculant::optim::{
    AdamOptions, Muon, MuonOptions, Optimizer, Schedule, Shampoo, ShampooOptions, Soap, SoapOptions,
};

pub(crate) fn tests() -> Vec<GpuTest> {
    gpu_tests![
        muon_follows_its_formula,
        soap_follows_its_formula,
        shampoo_follows_its_formula,
    ]
}

pub(crate) type Any = Box<dyn std::error::Error>;
type Matrix = DMatrix<f64>;

/// A wide matrix of 3 rows and 6 columns, and a tall one of 6 rows and 4 columns, with their biases. Values and not classes: gradients of
/// classes add up to zero, so that one direction has rounding errors alone, which Adam in an eigenbasis would make long.
const SHAPES: [[usize; 2]; 4] = [[3, 6], [1, 6], [6, 4], [1, 4]];

fn is_matrix(tensor: usize) -> bool {
    SHAPES[tensor][0] > 1
}

/// Steps in f32 are off by a few roundings of what they are made of; Newton-Schulz iterations multiply those by up to 3.4445^5 = 485.
/// Measured: 4e-6.
const STEPS: f64 = 2e-5;
/// Moments and factors are one or two operations, of a gradient with errors of some roundings.
const MOMENTS: f64 = 2e-6;

pub(crate) fn network() -> Model {
    let shape = DataShape {
        features: 3,
        targets: TargetShape::Values(4),
    };
    Sequential::new()
        .dense(6)
        .activation(Activation::Tanh)
        .dense(4)
        .model(shape, Loss::MeanSquaredError)
}

pub(crate) fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) -> Outcome {
    let scale = expected
        .iter()
        .fold(1e-30, |most, x| f64::max(most, x.abs()));
    let errors = found.iter().zip(expected);
    let error = errors.fold(0.0, |most, (a, b)| f64::max(most, (a - b).abs() / scale));
    if std::env::var_os("OSCULANT_TEST_FIGURES").is_some() {
        eprintln!("{what}: {error:.1e}");
    }
    if found.len() == expected.len() && error <= tolerance {
        return Ok(());
    }
    Err(format!("{what}: off by {error:.2e}\n{found:?}\n{expected:?}").into())
}

fn matrix([rows, columns]: [usize; 2], values: &[f64]) -> Matrix {
    Matrix::from_row_iterator(rows, columns, values.iter().copied())
}

fn values(matrix: &Matrix) -> Vec<f64> {
    matrix.transpose().iter().copied().collect()
}

/// Adam's options and corrections in a step.
struct InF64 {
    rate: f64,
    betas: [f64; 2],
    epsilon: f64,
    decay: f64,
    corrections: [f64; 2],
}

impl InF64 {
    fn new(options: &AdamOptions, number: usize, factor: f64) -> Self {
        let betas = [options.beta1, options.beta2].map(f64::from);
        Self {
            rate: factor * f64::from(options.learning_rate),
            betas,
            epsilon: options.epsilon.into(),
            decay: options.weight_decay.into(),
            corrections: betas.map(|beta| 1.0 - beta.powi(number as i32)),
        }
    }

    fn averaged(&self, which: usize, old: &Matrix, new: &Matrix) -> Matrix {
        let beta = self.betas[which];
        beta * old + (1.0 - beta) * new
    }

    fn direction(&self, m: &Matrix, v: &Matrix) -> Matrix {
        let [first, second] = self.corrections;
        m.zip_map(v, |m, v| m / first / ((v / second).sqrt() + self.epsilon))
    }
}

fn square(x: &Matrix) -> Matrix {
    x.component_mul(x)
}

/// What a step is made of, for one tensor.
struct Given {
    shape: [usize; 2],
    theta: Matrix,
    gradient: Matrix,
    /// What was remembered, zeros before the first step, and what the host had made.
    state: Vec<Matrix>,
    made: Vec<Matrix>,
    step: usize,
    factor: f64,
}

/// What it takes from the parameters, and what is remembered then.
type Expected = (Matrix, Vec<Matrix>);

fn adam(options: &AdamOptions, number: usize, given: &Given) -> Expected {
    let adam = InF64::new(options, number, given.factor);
    let m = adam.averaged(0, &given.state[0], &given.gradient);
    let v = adam.averaged(1, &given.state[1], &square(&given.gradient));
    let step = adam.rate * (adam.direction(&m, &v) + adam.decay * &given.theta);
    (step, vec![m, v])
}

/// Follows a method for some steps with a schedule: `shapes` of what is remembered and made of each tensor, what a step is, and what to
/// make of matrices that the host made in it: from what is remembered and what was made before.
fn follow(
    gpu: &Gpu,
    method: impl Optimizer<GraphObjective>,
    names: &[&str],
    shapes: &[[Vec<[usize; 2]>; 2]],
    expected: impl Fn(usize, &Given) -> Result<Expected, Any>,
    check: impl Fn(usize, &Given, &[Matrix], &[Matrix]) -> Outcome,
) -> Outcome {
    let model = network();
    let mut method = method.with_schedule(Schedule::Linear { last: 0.5 }, 20)?;
    let mut objective = GraphObjective::new(gpu, model.clone())?;
    let theta = vector(gpu, &objective, &draw(&model, 4)?)?;
    let remembered = |method: &dyn Optimizer<GraphObjective>, objective: &GraphObjective| {
        let state = method.state(objective)?;
        let mut found = Vec::new();
        for tensor in 0..SHAPES.len() {
            let own = |which: usize| -> Vec<Matrix> {
                let lists = shapes.iter().map(|shapes| &shapes[which]);
                let first: usize = lists.take(tensor).map(Vec::len).sum();
                let all = names.get(which).and_then(|name| state.vector(name));
                let own = shapes[tensor][which].iter().enumerate();
                let zeros = |[rows, columns]: [usize; 2]| Matrix::zeros(rows, columns);
                own.map(|(at, &shape)| {
                    all.map_or(zeros(shape), |all| {
                        let wide: Vec<f64> = all[first + at].iter().map(|&x| x.into()).collect();
                        matrix(shape, &wide)
                    })
                })
                .collect()
            };
            found.push([own(0), own(1)]);
        }
        Ok::<_, Any>(found)
    };
    for step in 0..9 {
        let batch = batch_for(&model, 12, step as u64);
        let before = wide_all(&theta.read(gpu)?);
        let twin = Reference::new(&model, &batch, 0.0)?;
        let gradient = cut(&twin.gradient(&before)?, &before);
        let memory = remembered(&method, &objective)?;
        let report = method.step(&mut objective, &theta, &batch)?;
        let (found, after) = (
            wide_all(&theta.read(gpu)?),
            remembered(&method, &objective)?,
        );
        let mut square_norm = 0.0;
        for (tensor, [state, made]) in memory.into_iter().enumerate() {
            let what = |what: &str| format!("{what} of tensor {tensor} in step {step}");
            let shape = SHAPES[tensor];
            let given = Given {
                shape,
                theta: matrix(shape, &before[tensor]),
                gradient: matrix(shape, &gradient[tensor]),
                state,
                made,
                step,
                factor: 1.0 - 0.5 * step as f64 / 20.0,
            };
            let (moved, remembered) = expected(tensor, &given)?;
            square_norm += moved.norm_squared();
            let found = matrix(shape, &found[tensor]);
            // Parameters of about 1 are rounded at 6e-8, steps are about 0.02.
            near(
                &what("step"),
                &values(&(&given.theta - found)),
                &values(&moved),
                STEPS,
            )?;
            for (at, (found, expected)) in after[tensor][0].iter().zip(&remembered).enumerate() {
                near(
                    &what(&format!("memory {at}")),
                    &values(found),
                    &values(expected),
                    MOMENTS,
                )?;
            }
            check(tensor, &given, &after[tensor][0], &after[tensor][1])?;
        }
        near(
            &format!("norm of step {step}"),
            &[report.step_norm],
            &[square_norm.sqrt()],
            STEPS,
        )?;
        if report.accepted != (square_norm > 0.0) {
            return Err(format!("step {step}: {report:?}").into());
        }
    }
    Ok(())
}

fn muon_follows_its_formula(gpu: &Gpu) -> Outcome {
    for (nesterov, decay) in [(true, 0.0f32), (false, 0.5)] {
        let options = MuonOptions::default()
            .with_nesterov(nesterov)
            .with_weight_decay(decay)
            .with_momentum(0.9)
            .with_adam(AdamOptions::default().with_learning_rate(0.01));
        let rule = |tensor: usize, given: &Given| {
            if !is_matrix(tensor) {
                return Ok(adam(&options.adam, given.step + 1, given));
            }
            let momentum = f64::from(options.momentum);
            let averaged = |m: &Matrix| momentum * m + (1.0 - momentum) * &given.gradient;
            let m = averaged(&given.state[0]);
            let u = if nesterov { averaged(&m) } else { m.clone() };
            let mut x = &u / (u.norm() + 1e-7);
            for _ in 0..5 {
                let a = &x * x.transpose();
                x = 3.4445 * &x + (-4.775 * &a + 2.0315 * &a * &a) * &x;
            }
            // Inputs are rows: the first matrix has twice as many outputs as inputs.
            let scale = if tensor == 0 { 2f64.sqrt() } else { 1.0 };
            let rate = given.factor * f64::from(options.learning_rate);
            let step = rate * (scale * x + f64::from(decay) * &given.theta);
            Ok((step, vec![m]))
        };
        let shapes = [0, 1, 2, 3].map(|tensor: usize| {
            let moments = if is_matrix(tensor) { 1 } else { 2 };
            [vec![SHAPES[tensor]; moments], Vec::new()]
        });
        let muon = Muon::new(options.clone())?;
        follow(gpu, muon, &["muon_moments"], &shapes, rule, |_, _, _, _| {
            Ok(())
        })?;
    }
    Ok(())
}

/// Whether a side of a matrix has a factor.
fn sides(tensor: usize, largest: usize) -> [bool; 2] {
    SHAPES[tensor].map(|side| is_matrix(tensor) && side <= largest)
}

/// Shapes of what methods with factors remember and have made.
fn with_factors(largest: usize) -> Vec<[Vec<[usize; 2]>; 2]> {
    let of = |tensor: usize| {
        let shape = SHAPES[tensor];
        let squares = shape.into_iter().zip(sides(tensor, largest));
        let squares = squares.filter_map(|(n, has)| has.then_some([n, n]));
        let squares: Vec<[usize; 2]> = squares.collect();
        [[vec![shape; 2], squares.clone()].concat(), squares]
    };
    (0..SHAPES.len()).map(of).collect()
}

/// `beta2` averages of `G G^T` and `G^T G`, of the sides that have them.
fn factors(options: &AdamOptions, sides: [bool; 2], given: &Given) -> Vec<Matrix> {
    let (adam, g) = (InF64::new(options, 1, 1.0), &given.gradient);
    let squares = [g * g.transpose(), g.transpose() * g];
    let squares = squares.iter().zip(sides).filter(|(_, has)| *has);
    let averages = squares.zip(&given.state[2..]);
    averages
        .map(|((square, _), old)| adam.averaged(1, old, square))
        .collect()
}

/// Of a step that only makes factors.
fn measured(factors: Vec<Matrix>, [rows, columns]: [usize; 2]) -> Expected {
    let zeros = Matrix::zeros(rows, columns);
    let moments = vec![zeros.clone(), zeros.clone()];
    (zeros, [moments, factors].concat())
}

/// Matrices of those sides that have one.
fn of_sides(found: &[Matrix], sides: [bool; 2]) -> [Option<&Matrix>; 2] {
    let mut found = found.iter();
    sides.map(|has| if has { found.next() } else { None })
}

/// What is made for rows and columns; the identity where nothing is.
fn whole(made: &[Matrix], sides: [bool; 2], shape: [usize; 2]) -> [Matrix; 2] {
    let [rows, columns] = of_sides(made, sides);
    [(rows, shape[0]), (columns, shape[1])]
        .map(|(made, side)| made.cloned().unwrap_or(Matrix::identity(side, side)))
}

/// Columns of a basis by falling `q^T F q`.
fn by_quotient(factor: &Matrix, basis: &Matrix) -> Vec<usize> {
    let quotient = |at: usize| (basis.column(at).transpose() * factor * basis.column(at))[(0, 0)];
    let mut order: Vec<usize> = (0..basis.ncols()).collect();
    order.sort_by(|&a, &b| quotient(b).total_cmp(&quotient(a)));
    order
}

fn soap_follows_its_formula(gpu: &Gpu) -> Outcome {
    const INTERVAL: usize = 3;
    for largest in [10, 4] {
        let own = AdamOptions::default()
            .with_learning_rate(0.02)
            .with_beta1(0.9)
            .with_beta2(0.8)
            .with_weight_decay(0.5);
        let options = SoapOptions::default()
            .with_adam(own.clone())
            .with_interval(INTERVAL as u32)
            .with_largest(largest);
        let renewed = |step: usize| step > 0 && step.is_multiple_of(INTERVAL);
        let rule = |tensor: usize, given: &Given| {
            let sides = sides(tensor, largest);
            let factors = factors(&own, sides, given);
            if given.step == 0 {
                return Ok(measured(factors, given.shape));
            }
            let adam = InF64::new(&own, given.step, given.factor);
            let [q, p] = whole(&given.made, sides, given.shape);
            let rotated = |x: &Matrix| q.transpose() * x * &p;
            let m = adam.averaged(0, &given.state[0], &given.gradient);
            let v = adam.averaged(1, &given.state[1], &square(&rotated(&given.gradient)));
            let direction = &q * adam.direction(&rotated(&m), &v) * p.transpose();
            let step = adam.rate * (direction + adam.decay * &given.theta);
            if !renewed(given.step) {
                return Ok((step, [vec![m, v], factors].concat()));
            }
            let [rows, columns] = of_sides(&factors, sides);
            let order = |factor: Option<&Matrix>, basis: &Matrix| match factor {
                Some(factor) => by_quotient(factor, basis),
                None => (0..basis.ncols()).collect(),
            };
            let v = v.select_rows(&order(rows, &q));
            let v = v.select_columns(&order(columns, &p));
            Ok((step, [vec![m, v], factors].concat()))
        };
        let check = |_: usize, given: &Given, state: &[Matrix], made: &[Matrix]| -> Outcome {
            for ((factor, new), old) in state[2..].iter().zip(made).zip(&given.made) {
                let one = Matrix::identity(new.nrows(), new.nrows());
                near(
                    "orthogonality",
                    &values(&(new.transpose() * new)),
                    &values(&one),
                    1e-6,
                )?;
                // Eigenvectors at first: the factor is diagonal in them, and falls. Then the orthogonal factor of F Q: the other one, which
                // is what is above the diagonal, is what is left.
                let (left, unchanged) = match given.step {
                    0 => (new.transpose() * factor * new, false),
                    step if renewed(step) => {
                        let order = by_quotient(factor, old);
                        (new.transpose() * factor * old.select_columns(&order), false)
                    }
                    _ => (new.clone(), true),
                };
                if unchanged {
                    near("an old basis", &values(new), &values(old), 0.0)?;
                    continue;
                }
                let upper = match given.step {
                    0 => Matrix::from_diagonal(&left.diagonal()),
                    _ => left.upper_triangle(),
                };
                near("a new basis", &values(&left), &values(&upper), 1e-6)?;
                let falls =
                    |at: usize| left[(at, at)] >= left[(at + 1, at + 1)] - 1e-7 * left.norm();
                if given.step == 0 && !(0..left.nrows() - 1).all(falls) {
                    return Err(format!("eigenvalues {}", left.diagonal()).into());
                }
            }
            Ok(())
        };
        let soap = Soap::new(options)?;
        let names = ["soap_moments", "soap_bases"];
        follow(gpu, soap, &names, &with_factors(largest), rule, check)?;
    }
    Ok(())
}

fn shampoo_follows_its_formula(gpu: &Gpu) -> Outcome {
    const INTERVAL: usize = 2;
    let ridge = 1e-2;
    for largest in [10, 4] {
        let own = AdamOptions::default()
            .with_learning_rate(0.02)
            .with_beta2(0.9)
            .with_weight_decay(0.5);
        let options = ShampooOptions::default()
            .with_adam(own.clone())
            .with_ridge(ridge)
            .with_interval(INTERVAL as u32)
            .with_largest(largest);
        let rule = |tensor: usize, given: &Given| {
            let sides = sides(tensor, largest);
            let factors = factors(&own, sides, given);
            if given.step == 0 {
                return Ok(measured(factors, given.shape));
            }
            if !is_matrix(tensor) {
                return Ok(adam(&own, given.step, given));
            }
            let adam = InF64::new(&own, given.step, given.factor);
            let [left, right] = whole(&given.made, sides, given.shape);
            let m = adam.averaged(0, &given.state[0], &given.gradient);
            let v = adam.averaged(1, &given.state[1], &square(&given.gradient));
            let direction = left * &m * right;
            let scale = adam.direction(&m, &v).norm() / direction.norm();
            let step = adam.rate * (scale * direction + adam.decay * &given.theta);
            Ok((step, [vec![m, v], factors].concat()))
        };
        let check = |tensor: usize, given: &Given, state: &[Matrix], made: &[Matrix]| -> Outcome {
            // A matrix with one factor has the whole of the inverse square root there.
            let both = sides(tensor, largest).iter().filter(|has| **has).count() == 2;
            for ((factor, root), old) in state[2..].iter().zip(made).zip(&given.made) {
                if !given.step.is_multiple_of(INTERVAL) {
                    near("an old root", &values(root), &values(old), 0.0)?;
                    continue;
                }
                let one = Matrix::identity(root.nrows(), root.nrows());
                let largest = SymmetricEigen::new(factor.clone()).eigenvalues.max();
                let square = root * root;
                let power = if both { &square * &square } else { square };
                let product = power * (factor + ridge * largest * &one);
                // Roundings of the root's elements, times the condition of at most 101, and four factors.
                near("a new root", &values(&product), &values(&one), 2e-5)?;
            }
            Ok(())
        };
        let shampoo = Shampoo::new(options)?;
        let names = ["shampoo_moments", "shampoo_roots"];
        follow(gpu, shampoo, &names, &with_factors(largest), rule, check)?;
    }
    Ok(())
}
