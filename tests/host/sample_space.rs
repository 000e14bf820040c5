//! Rows of examples in the f64 twin: squares and products of all kinds against dense rows, right sides against gradients of single examples.

use osculant::graph::NodeId;
use osculant::graph::derivatives::gradient;
use osculant::graph::per_example::mixture_rows;
use osculant::graph::sample_space::{SampleRows, TERMS};
use osculant::nn::{Activation, Loss, Model, Sequential};

use crate::per_example::{CONSTANTS, Case, IDENTITIES, Outcome, WEIGHTS, models, random, within};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    RootLosses,
    Probe,
    Exact,
}

const KINDS: [Kind; 3] = [Kind::RootLosses, Kind::Probe, Kind::Exact];

fn rows_of(case: &mut Case, kind: Kind) -> osculant::Result<SampleRows> {
    let (losses, outputs, weights) = (case.traced.losses, case.traced.outputs, case.weights);
    let (graph, parameters, probe) = (&mut case.traced.graph, &case.parameters, case.probe);
    match kind {
        Kind::RootLosses => SampleRows::of_root_losses(graph, [losses, weights], parameters),
        Kind::Probe => SampleRows::of_mixtures(graph, (outputs, probe.root), weights, parameters),
        Kind::Exact => SampleRows::of_root(
            graph,
            (outputs, probe.root, probe.signs),
            probe.residuals,
            weights,
            parameters,
        ),
    }
}

/// The rows with their weights, from those that other tests compare with batches of one example.
fn dense(case: &mut Case, kind: Kind, weights: &[f64]) -> osculant::Result<Vec<Vec<f64>>> {
    let rows = match kind {
        Kind::RootLosses => case.gradient_rows()?,
        Kind::Exact => case.root_rows()?,
        Kind::Probe => {
            let of = (case.traced.outputs, case.probe.root);
            mixture_rows(&mut case.traced.graph, of, &case.parameters)?
        }
    };
    let formed: osculant::Result<Vec<NodeId>> = rows
        .iter()
        .map(|rows| rows.formed(&mut case.traced.graph))
        .collect();
    let tensors = case.at(&formed?)?;
    let losses = case.at(&[case.traced.losses])?.concat();
    let count = rows[0].columns() * weights.len();
    let row = |number: usize| -> Vec<f64> {
        let example = number % weights.len();
        let scale = match kind {
            Kind::RootLosses => (weights[example] / (2.0 * losses[example])).sqrt(),
            _ => weights[example].sqrt(),
        };
        let of = |tensor: &Vec<f64>| {
            let width = tensor.len() / count;
            tensor[number * width..(number + 1) * width].to_vec()
        };
        let all = tensors.iter().flat_map(of);
        all.map(|value| scale * value).collect()
    };
    Ok((0..count).map(row).collect())
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What is right for one model and kind.
fn check(name: &str, model: &Model, kind: Kind, weights: &[f64]) -> Outcome {
    let name = format!("{name}, {kind:?}");
    let mut case = Case::new(model, weights)?;
    let width = case.traced.graph.shape(case.probe.signs).clone();
    let signs = random(width.iter().product(), 9);
    let signs = signs.into_iter().map(f64::signum).collect();
    case.leaves.directions.push((case.probe.signs, signs));
    let a = dense(&mut case, kind, weights)?;
    let (m, p) = (a.len(), a[0].len());
    let rows = rows_of(&mut case, kind)?;
    assert_eq!(rows.count(), m, "{name}");
    let (v, u) = (random(p, 20), random(m, 21));
    let graph = &mut case.traced.graph;
    let (mut directions, mut start) = (Vec::new(), 0);
    for &parameter in &case.parameters {
        let shape = graph.shape(parameter).clone();
        let size: usize = shape.iter().product();
        let leaf = graph.direction(&shape);
        directions.push(leaf);
        let values = v[start..start + size].to_vec();
        case.leaves.directions.push((leaf, values));
        start += size;
    }
    let coefficients = graph.direction(&[m]);
    case.leaves.directions.push((coefficients, u.clone()));
    let gram = rows.gram(graph)?;
    let image = rows.image(graph, &directions)?;
    let combination = rows.combination(graph, coefficients)?;
    let normal = rows.normal(graph)?;
    let parts = graph.shape(normal)[0];
    assert_eq!(parts, m.div_ceil(TERMS), "{name}");
    let found = case.at(&[gram, image, normal])?;
    let all: Vec<f64> = a.iter().flat_map(|x| a.iter().map(|y| dot(x, y))).collect();
    within(IDENTITIES, &format!("{name}: A A^T"), &found[0], &all)?;
    let all: Vec<f64> = a.iter().map(|x| dot(x, &v)).collect();
    within(IDENTITIES, &format!("{name}: A v"), &found[1], &all)?;
    let column = |j: usize| a.iter().map(|row| row[j]).collect::<Vec<f64>>();
    let all: Vec<f64> = (0..p).map(|j| dot(&column(j), &u)).collect();
    let added = case.at(&combination)?.concat();
    within(IDENTITIES, &format!("{name}: A^T u"), &added, &all)?;

    let mut columns: Vec<Vec<f64>> = (0..p).map(column).collect();
    if let Some(residuals) = rows.residuals() {
        let r = case.at(&[residuals])?.concat();
        // The gradient of single examples, by a program that knows of no rows.
        let mut expected = vec![0.0; p];
        for (row, weight) in weights.iter().enumerate() {
            let mut one = case.alone(model, row)?;
            let losses = one.traced.losses;
            let slopes = gradient(&mut one.traced.graph, losses, &one.parameters)?;
            let slopes = one.at(&slopes)?.concat();
            for (sum, slope) in expected.iter_mut().zip(slopes) {
                *sum += weight * slope;
            }
        }
        let found: Vec<f64> = columns.iter().map(|column| dot(column, &r)).collect();
        within(CONSTANTS, &format!("{name}: A^T r"), &found, &expected)?;
        if kind == Kind::RootLosses {
            let losses = case.at(&[case.traced.losses])?.concat();
            let twice = 2.0 * dot(&losses, weights);
            within(
                IDENTITIES,
                &format!("{name}: r.r"),
                &[dot(&r, &r)],
                &[twice],
            )?;
        }
        columns.push(r);
    } else {
        assert_eq!(kind, Kind::Probe, "{name}");
    }
    let k = columns.len();
    let mut sum = vec![0.0; k * k];
    for part in found[2].chunks(k * k) {
        sum.iter_mut().zip(part).for_each(|(sum, x)| *sum += x);
    }
    let all: Vec<f64> = columns
        .iter()
        .flat_map(|x| columns.iter().map(|y| dot(x, y)))
        .collect();
    within(IDENTITIES, &format!("{name}: [A r]^T [A r]"), &sum, &all)
}

#[test]
fn squares_and_products_are_those_of_dense_rows() -> Outcome {
    for (name, model) in models() {
        for kind in KINDS {
            check(&name, &model, kind, &WEIGHTS)?;
        }
    }
    Ok(())
}

#[test]
fn one_example_has_rows_too() -> Outcome {
    for (name, model) in models() {
        for kind in KINDS {
            check(&format!("{name}, alone"), &model, kind, &[0.7])?;
        }
    }
    Ok(())
}

/// 1,400 examples of one output: two parts of 700 rows each.
#[test]
fn normal_matrices_come_in_parts() -> Outcome {
    use osculant::nn::{DataShape, TargetShape};
    let shape = DataShape {
        features: 2,
        targets: TargetShape::Values(1),
    };
    let network = Sequential::new().dense(2).activation(Activation::Tanh);
    let model = network.dense(1).model(shape, Loss::MeanSquaredError);
    let weights = vec![1.0 / 1400.0; 1400];
    check("many", &model, Kind::RootLosses, &weights)?;
    check("many", &model, Kind::Exact, &weights)
}
