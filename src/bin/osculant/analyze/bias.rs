//! `osculant analyze bias`: what a mini-batch thinks of its own directions, and what becomes of steps along them.

use osculant::data::{Batch, Dataset, Dealing, Role, Roles};
use osculant::gpu::{Gpu, Work};
use osculant::linalg::{
    Basis, CgOptions, Companion, ConjugateGradients, EigenOptions, Operator, RandomizedEigensolver,
    Storage,
};
use osculant::objective::{
    Accumulated, Curvature, Curved, GraphObjective, Group, GroupRequest, Parts, QuadraticRequest,
    Slot,
};
use osculant::vector::Vector;

use super::bias_report::{
    Checkpoint, Direction, Mean, PathPoint, Report, STRATEGIES, Three, mean, table, write,
};
use super::start;
use crate::arguments::{Bias, DirectionKind};
use crate::failure::{Failure, Outcome};
use crate::training::{Task, Trainer};

/// Rows whose products are computed at once.
const ROWS: usize = 10_000;
/// Added to the matrix in all cases, as the objective's regularization.
const L2: f32 = 1e-3;
/// Steps after which training to a loss is given up.
const MOST_STEPS: u64 = 100_000;

/// Directions and iterates of a batch, as vectors on the host.
type Numbers = Vec<f64>;

/// Runs the command.
pub(crate) fn run(arguments: &Bias) -> Outcome {
    let point = &arguments.point;
    std::fs::create_dir_all(&arguments.out)
        .map_err(|error| Failure::file(&arguments.out, error))?;
    let problem = &point.problem.open()?;
    let data = &problem.load(point.data.as_deref())?;
    let full = start::rows(data, arguments.rows.as_deref())?;
    let batch = arguments.batch as usize;
    if 2 * batch > full.len() {
        return Err(Failure::new(format!(
            "--batch {batch}: two batches do not fit into {} rows",
            full.len()
        ))
        .hint(format!("for example --batch {}", full.len() / 2)));
    }
    let gpu = &crate::place::device(point.adapter.as_deref(), point.tuning.as_deref())?;
    let mut trainer = start::trainer(Task { gpu, problem, data }, point)?;
    let mut checkpoints = Vec::new();
    for &loss in &arguments.losses {
        let reached = train_to(&mut trainer, &full, loss)?;
        eprintln!("{}: training loss {reached:.3}", problem.name());
        checkpoints.push(measure(gpu, &trainer, &full, arguments, reached)?);
    }
    let report = Report {
        problem: problem.name().to_owned(),
        batch,
        batches: arguments.batches,
        l2: L2,
        examples: full.len(),
        checkpoints,
    };
    println!("{}", table(&report));
    write(&report, arguments)?;
    println!("picture: {}", arguments.out.join("bias.png").display());
    Ok(())
}

/// Trains until the loss on all rows is at most `loss`; a loss that is above the first one means no training.
fn train_to(trainer: &mut Trainer<'_>, full: &Dataset, loss: f64) -> Outcome<f64> {
    let mut now = trainer.objective.evaluate(&trainer.theta, full)?.loss;
    while now > loss {
        // About ten looks while the loss falls by a half.
        for _ in 0..(trainer.counters.step / 10).clamp(1, 50) {
            trainer.step()?;
        }
        now = trainer.objective.evaluate(&trainer.theta, full)?.loss;
        if trainer.counters.step > MOST_STEPS || !now.is_finite() {
            return Err(Failure::new(format!(
                "training came to a loss of {now:.4} and not to {loss}"
            ))
            .hint("give larger --losses"));
        }
    }
    Ok(now)
}

fn flat(tensors: &[Vec<f32>]) -> Numbers {
    tensors.iter().flatten().map(|&x| f64::from(x)).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Writes numbers in the shapes of a vector.
fn put(gpu: &Gpu, vector: &Vector, numbers: &[f64]) -> Outcome {
    let mut rest = numbers;
    let tensors: Vec<Vec<f32>> = vector
        .parts()
        .iter()
        .map(|part| {
            let (own, left) = rest.split_at(part.len());
            rest = left;
            own.iter().map(|&x| x as f32).collect()
        })
        .collect();
    Ok(vector.write(gpu, &tensors)?)
}

/// Slope and curvature along directions of length 1, on a quadratic that is linearized.
fn along(
    gpu: &Gpu,
    operator: &Operator,
    gradient: &Vector,
    directions: &[Numbers],
) -> Outcome<Vec<[f64; 2]>> {
    let gradient = flat(&gradient.read(gpu)?);
    directions
        .iter()
        .map(|direction| {
            put(gpu, &operator.input, direction)?;
            gpu.run([&operator.multiply])?;
            let product = flat(&operator.output.read(gpu)?);
            Ok([dot(direction, &gradient), dot(direction, &product)])
        })
        .collect()
}

fn normalized(mut numbers: Numbers) -> Option<Numbers> {
    let norm = dot(&numbers, &numbers).sqrt();
    numbers.iter_mut().for_each(|x| *x /= norm);
    (norm > 0.0 && norm.is_finite()).then_some(numbers)
}

/// One point, on one device.
struct Place<'a> {
    gpu: &'a Gpu,
    objective: GraphObjective,
    theta: &'a Vector,
    iterations: usize,
}

impl Place<'_> {
    fn request(block: usize) -> QuadraticRequest {
        QuadraticRequest {
            curvature: Curvature::GaussNewton,
            block,
            ..QuadraticRequest::default()
        }
    }

    /// Iterates of conjugate gradients on one batch after 1, 2, ... iterations.
    fn iterates(&mut self, batch: &Batch, damping: f64) -> Outcome<Vec<Numbers>> {
        let quadratic =
            self.objective
                .load_quadratic(Slot::default(), self.theta, batch, Self::request(0))?;
        let operator = Operator::from(quadratic.as_ref());
        let (before, gradient) = (&quadratic.linearize, &quadratic.gradient);
        self.solve(&operator, gradient, before, None, damping)
    }

    /// The same with directions of one half of a batch and steps of the other: those of the second half on the first half's directions,
    /// then the other way round.
    fn decoupled(
        &mut self,
        halves: &Batch,
        shrinks: bool,
        damping: f64,
    ) -> Outcome<[Vec<Numbers>; 2]> {
        let request = GroupRequest {
            curvature: Curvature::GaussNewton,
            slope_variance: shrinks,
            losses: false,
        };
        let loaded = self.objective.load_groups(Slot::default(), halves, 2)?;
        let quadratic = self.objective.grouped(self.theta, &loaded, request)?;
        let iterates = |directions: &Group, steps: &Group| {
            let operator = Operator {
                input: quadratic.direction.clone(),
                output: directions.product.clone(),
                multiply: quadratic.multiply.clone(),
            };
            let companion = Companion {
                gradient: steps.gradient.clone(),
                product: steps.product.clone(),
                variance: steps.slope_variance.clone(),
            };
            let (before, gradient) = (&quadratic.linearize, &directions.gradient);
            self.solve(&operator, gradient, before, Some(&companion), damping)
        };
        let [first, second] = &quadratic.groups[..] else {
            return Err(Failure::new("the program has no two halves".to_owned()));
        };
        Ok([iterates(first, second)?, iterates(second, first)?])
    }

    fn solve(
        &self,
        operator: &Operator,
        gradient: &Vector,
        before: &Work,
        companion: Option<&Companion>,
        damping: f64,
    ) -> Outcome<Vec<Numbers>> {
        let options = CgOptions::default()
            .with_max_iterations(self.iterations)
            .with_progress_tolerance(0.0)
            .with_residual_tolerance(1e-6);
        let keep: Vec<usize> = (1..=self.iterations).collect();
        let cg = ConjugateGradients::with_companion(
            self.gpu, operator, gradient, None, &options, &keep, companion,
        )?;
        let report = cg.solve(before, damping as f32, None, false)?;
        let mut all = cg
            .kept(&report)
            .map(|(_, vector)| Ok(flat(&vector.read(self.gpu)?)))
            .collect::<Outcome<Vec<_>>>()?;
        // A solve that ended keeps its solution.
        all.resize(self.iterations, flat(&cg.solution.read(self.gpu)?));
        Ok(all)
    }

    /// Directions of a batch, of length 1.
    fn directions(
        &mut self,
        batch: &Batch,
        kind: DirectionKind,
        k: usize,
    ) -> Outcome<Vec<Numbers>> {
        match kind {
            DirectionKind::Cg => {
                let iterates = self.iterates(batch, 0.0)?;
                let mut before = vec![0.0; iterates[0].len()];
                let mut directions = Vec::new();
                for iterate in iterates.into_iter().take(k) {
                    let step = iterate.iter().zip(&before).map(|(x, y)| x - y).collect();
                    directions.extend(normalized(step));
                    before = iterate;
                }
                Ok(directions)
            }
            DirectionKind::Eig => {
                let options = EigenOptions::default()
                    .with_rank(k)
                    .with_power_iterations(3);
                let request = Self::request(options.width());
                let quadratic =
                    self.objective
                        .load_quadratic(Slot::default(), self.theta, batch, request)?;
                let Some(block) = &quadratic.block else {
                    return Err(Failure::new("the program has no block".to_owned()));
                };
                let basis = Basis::new(self.gpu, self.theta.layout(), k, Storage::Full)?;
                let operator = Operator::from(block);
                RandomizedEigensolver::new(self.gpu, &operator, &basis, &options)?
                    .solve(&quadratic.linearize, false)?;
                let vectors = basis.read(self.gpu)?;
                Ok(vectors.iter().filter_map(|v| normalized(flat(v))).collect())
            }
        }
    }
}

fn measure(
    gpu: &Gpu,
    trainer: &Trainer<'_>,
    full: &Dataset,
    arguments: &Bias,
    train_loss: f64,
) -> Outcome<Checkpoint> {
    let objective = trainer.objective.sibling()?.with_l2(L2)?;
    let (k, n) = (arguments.k as usize, arguments.batch as usize);
    let mut place = Place {
        gpu,
        objective,
        theta: &trainer.theta,
        iterations: arguments.iterations as usize,
    };
    let mut whole = Accumulated::new(place.objective.sibling()?);
    let rows: Vec<usize> = (0..full.len()).collect();
    let batch = full.micro_batches(&rows, ROWS)?;
    let all = whole.load_quadratic(Slot::default(), place.theta, &batch, Place::request(0))?;
    let all_products = Operator::from(all.as_ref());
    gpu.run([&all.linearize])?;
    let origin = flat(&place.theta.read(gpu)?);
    let trial = Vector::new(gpu, "trial point", place.theta.layout())?;
    let evaluated: Vec<usize> = (0..)
        .map(|power| 1usize << power)
        .take_while(|&i| i <= place.iterations)
        .collect();
    let mut lines: Vec<Vec<[[f64; 2]; 3]>> = vec![Vec::new(); k];
    let mut changes =
        vec![vec![vec![Vec::new(); evaluated.len()]; arguments.dampings.len()]; STRATEGIES.len()];
    let plan = [(Role::Directions, n), (Role::Steps, n)];
    let mut roles = Roles::new(full.len(), &plan, Dealing::Disjoint, arguments.point.seed)?;
    let regularized = |x: &[f64]| f64::from(L2) / 2.0 * dot(x, x);
    let start = train_loss + regularized(&origin);
    for _ in 0..arguments.batches {
        let step = roles.next_step();
        let (a, b) = (full.batch(&step[0])?, full.batch(&step[1])?);
        let both = full.batch(&step.concat())?;
        let directions = place.directions(&a, arguments.directions, k)?;
        let on = |place: &mut Place<'_>, batch: &Batch| -> Outcome<Vec<[f64; 2]>> {
            let request = Place::request(0);
            let quadratic =
                place
                    .objective
                    .load_quadratic(Slot::default(), place.theta, batch, request)?;
            gpu.run([&quadratic.linearize])?;
            let operator = Operator::from(quadratic.as_ref());
            along(gpu, &operator, &quadratic.gradient, &directions)
        };
        let (own, other) = (on(&mut place, &a)?, on(&mut place, &b)?);
        let whole = along(gpu, &all_products, &all.gradient, &directions)?;
        for (index, line) in lines.iter_mut().enumerate().take(directions.len()) {
            line.push([own[index], other[index], whole[index]]);
        }
        for (d, &damping) in arguments.dampings.iter().enumerate() {
            let half = |pair: &[Vec<Numbers>; 2]| -> Vec<Numbers> {
                let mean = |(x, y): (&Numbers, &Numbers)| {
                    x.iter().zip(y).map(|(x, y)| 0.5 * (x + y)).collect()
                };
                pair[0].iter().zip(&pair[1]).map(mean).collect()
            };
            let plain = place.decoupled(&both, false, damping)?;
            let shrunk = place.decoupled(&both, true, damping)?;
            let paths: [Vec<Numbers>; 5] = [
                place.iterates(&a, damping)?,
                place.iterates(&both, damping)?,
                plain[0].clone(),
                half(&plain),
                half(&shrunk),
            ];
            for (strategy, path) in paths.iter().enumerate() {
                for (at, &iteration) in evaluated.iter().enumerate() {
                    let x: Numbers = origin
                        .iter()
                        .zip(&path[iteration - 1])
                        .map(|(x, d)| x + d)
                        .collect();
                    put(gpu, &trial, &x)?;
                    let loss = place.objective.evaluate(&trial, full)?.loss;
                    changes[strategy][d][at].push(loss + regularized(&x) - start);
                }
            }
        }
    }
    Ok(Checkpoint {
        train_loss,
        epochs: trainer.work(),
        directions: summary(&lines),
        path: path(&changes, arguments, &evaluated),
    })
}

fn summary(lines: &[Vec<[[f64; 2]; 3]>]) -> Vec<Direction> {
    let three = |line: &[[[f64; 2]; 3]], what: usize| {
        let each = [0, 1, 2].map(|on| {
            let values: Vec<f64> = line.iter().map(|of| of[on][what]).collect();
            mean(&values)
        });
        Three {
            a: each[0].mean,
            b: each[1].mean,
            full: each[2].mean,
            errors: each.map(|m| m.error),
        }
    };
    lines
        .iter()
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(index, line)| Direction {
            index,
            slope: three(line, 0),
            curvature: three(line, 1),
        })
        .collect()
}

fn path(changes: &[Vec<Vec<Vec<f64>>>], arguments: &Bias, evaluated: &[usize]) -> Vec<PathPoint> {
    let mut points = Vec::new();
    for (strategy, by_damping) in STRATEGIES.iter().zip(changes) {
        for (&damping, by_iteration) in arguments.dampings.iter().zip(by_damping) {
            for (&iteration, values) in evaluated.iter().zip(by_iteration) {
                let Mean { mean, error } = mean(values);
                points.push(PathPoint {
                    strategy,
                    damping,
                    iteration,
                    loss_change: mean,
                    error,
                });
            }
        }
    }
    points
}
