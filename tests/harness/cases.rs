//! For every primitive a loss around it, on several shapes.
//!
//! Each shape has a parameter of its own and a term of the loss of its own, so that the gradient
//! and the products of each are compared by themselves. A term is cubic in the primitive's value,
//! so that second derivatives do not vanish where the primitive is linear. Sizes are chosen to
//! reach every form of a kernel: 1, multiples of 4 (vec4) and others; few and many terms or results
//! (one invocation or 64 per sum); one and two blocks of rows in `dot`.

use osculant::Result;
use osculant::graph::node::elements;
use osculant::graph::tensor::Builder;
use osculant::graph::{Binary, DType, Graph, NodeId, Tensor, Unary};

use super::compare::{Input, Problem};

/// A primitive, or a group of uses of it, with the loss around it.
pub(crate) struct Case {
    pub(crate) name: &'static str,
    pub(crate) problem: fn() -> Result<Problem>,
}

/// Relative error, in the norm of one result, that single precision may make of these cases: a
/// rounding is 6e-8, and sums of some hundred terms and `exp` or `tanh` of a driver cost a digit.
pub(crate) const TOLERANCE: f64 = 1e-5;

/// All primitives.
pub(crate) const ALL: &[Case] = &[
    case("elementwise_shapes", elementwise_shapes),
    case("unary_functions", unary_functions),
    case("binary_functions", binary_functions),
    case("select", select),
    case("stop_gradient", stop_gradient),
    case("broadcast", broadcast),
    case("reshape", reshape),
    case("permute", permute),
    case("slice", slice),
    case("pad", pad),
    case("concat", concat),
    case("sum", sum),
    case("max_over", max_over),
    case("maximum_shared_by_equal_elements", shared_maximum),
    case("dot_stored_and_transposed", dot_stored),
    case("dot_in_blocks_of_rows", dot_in_blocks),
    case("dot_in_other_blocks_of_rows", dot_in_other_blocks),
    case("dot_of_views", dot_of_views),
    case("gather_and_scatter_add", gather_and_scatter_add),
    case("one_hot", one_hot),
    case("classifier", classifier),
    case("tied_regression", tied_regression),
];

const fn case(name: &'static str, problem: fn() -> Result<Problem>) -> Case {
    Case { name, problem }
}

/// Between 0.5 and 1.5, different at neighbouring elements.
fn weights(count: usize) -> Vec<f32> {
    (0..count)
        .map(|i| 0.5 + (i as f32 * 0.618_034).fract())
        .collect()
}

/// A tensor of [`weights`].
fn given<'b>(b: &'b Builder, shape: &[usize]) -> Tensor<'b> {
    b.data(weights(elements(shape)), shape)
}

/// `sum of w y (1 + y^2)`: a scalar whose derivatives of order one and two see every element.
pub(crate) fn score<'b>(b: &'b Builder, y: Tensor<'b>) -> Tensor<'b> {
    let shape = y.shape();
    let axes: Vec<usize> = (0..shape.len()).collect();
    (given(b, &shape) * y * (y * y + 1.0))
        .sum(&axes)
        .reshape(&[])
}

/// [`score`] in a bare graph, for primitives that the notation has no method for.
fn add_score(graph: &mut Graph, loss: NodeId, y: NodeId) -> Result<NodeId> {
    let shape = graph.shape(y).clone();
    let axes: Vec<usize> = (0..shape.len()).collect();
    let w = graph.data_tensor(weights(elements(&shape)), &shape)?;
    let square = graph.binary(Binary::Mul, y, y)?;
    let one = graph.constant(1.0, &shape);
    let factor = graph.binary(Binary::Add, square, one)?;
    let cubic = graph.binary(Binary::Mul, y, factor)?;
    let terms = graph.binary(Binary::Mul, w, cubic)?;
    let sum = graph.sum(terms, &axes)?;
    let sum = graph.reshape(sum, &[])?;
    graph.binary(Binary::Add, loss, sum)
}

/// The sum of the scores of `f(item, x)` over the items, where `x` is a parameter of the shape
/// that `shape` gives the item.
fn scores<I: std::fmt::Debug>(
    items: impl IntoIterator<Item = I>,
    shape: impl Fn(&I) -> &[usize],
    f: impl for<'b> Fn(&'b Builder, &I, Tensor<'b>) -> Tensor<'b>,
) -> Result<Problem> {
    Problem::new(|b| {
        let mut loss = b.constant(0.0);
        for (i, item) in items.into_iter().enumerate() {
            let x = b.parameter(&format!("{i}: {item:?}"), shape(&item));
            loss = loss + score(b, f(b, &item, x));
        }
        (loss, None)
    })
}

fn elementwise_shapes() -> Result<Problem> {
    let shapes: [&[usize]; 8] = [
        &[],
        &[1],
        &[7],
        &[8],
        &[3, 5],
        &[3, 1, 4],
        &[2, 65, 4],
        &[67, 13],
    ];
    scores(shapes, |s| s, |_, _, x| x.tanh() * x + 0.5)
}

fn unary_functions() -> Result<Problem> {
    let shapes: [&[usize]; 2] = [&[5], &[3, 4]];
    let items = Unary::ALL.iter().flat_map(|&f| shapes.map(|s| (f, s)));
    scores(
        items,
        |item| item.1,
        |_, &(f, _), x| match f {
            Unary::Neg => -x,
            Unary::Exp => x.exp(),
            Unary::Log => (x * x + 0.5).log(),
            Unary::Tanh => (x * 3.0).tanh(),
            Unary::Logistic => (x * 3.0).logistic(),
            Unary::Softplus => (x * 5.0).softplus(),
            Unary::Log1p => (x * 0.9).log1p(),
            Unary::Expm1 => x.expm1(),
            Unary::Expm1mx => (x * 2.0).expm1mx(),
            Unary::Sin => (x * 3.0).sin(),
            Unary::Cos => (x * 3.0).cos(),
            Unary::Sqrt => (x * x + 0.5).sqrt(),
            Unary::Reciprocal => (x * x + 0.5).reciprocal(),
            Unary::Erf => (x * 2.0).erf(),
            Unary::Relu => x.relu(),
            // Its derivative is zero: the other factor gives the derivatives something to do.
            Unary::Step => x.step() * x,
            Unary::IsFinite => x.is_finite() * x,
        },
    )
}

fn binary_functions() -> Result<Problem> {
    Problem::new(|b| {
        let mut loss = b.constant(0.0);
        for f in Binary::ALL {
            for shape in [&[5usize] as &[usize], &[3, 4]] {
                let x = b.parameter(&format!("left of {f:?} {shape:?}"), shape);
                let y = b.parameter(&format!("right of {f:?} {shape:?}"), shape);
                let value = match f {
                    Binary::Add => x + y,
                    Binary::Sub => x - y,
                    Binary::Mul => x * y,
                    Binary::Div => x / (y * y + 0.5),
                    Binary::Max => x.max(y * y),
                };
                loss = loss + score(b, value);
            }
        }
        (loss, None)
    })
}

fn select() -> Result<Problem> {
    Problem::new(|b| {
        let mut loss = b.constant(0.0);
        for shape in [&[7usize] as &[usize], &[2, 4]] {
            let x = b.parameter(&format!("x {shape:?}"), shape);
            let y = b.parameter(&format!("y {shape:?}"), shape);
            let c = b.input(&format!("condition {shape:?}"), shape);
            // A condition that is given, one that moves, and branches that do not.
            let value = c.select(x * y, y)
                + (x * x * x).select(y * y, b.constant(0.0))
                + c.select(c, x * x)
                + c.select(b.constant(2.0), y);
            loss = loss + score(b, value);
        }
        (loss, None)
    })
}

fn stop_gradient() -> Result<Problem> {
    let shapes: [&[usize]; 2] = [&[7], &[2, 4]];
    scores(
        shapes,
        |s| s,
        |_, _, x| x * (x * x + 1.0).stop_gradient() + (x * 2.0).tanh().stop_gradient(),
    )
}

fn broadcast() -> Result<Problem> {
    let items: [(&[usize], &[usize]); 8] = [
        (&[], &[6]),
        (&[1], &[9]),
        (&[5], &[3, 5]),
        (&[8], &[3, 8]),
        (&[4, 1], &[4, 12]),
        (&[3, 1, 5], &[3, 4, 5]),
        (&[1, 3, 1], &[70, 3, 4]),
        (&[1, 1, 4], &[2, 40, 4]),
    ];
    scores(
        items,
        |i| i.0,
        |b, (_, to), x| {
            // After something cheap, and after something costly, which is not computed once per copy.
            (x + 1.0).broadcast(to) * given(b, to) + x.exp().broadcast(to)
        },
    )
}

fn reshape() -> Result<Problem> {
    let items: [(&[usize], &[usize]); 9] = [
        (&[1], &[]),
        (&[], &[1, 1]),
        (&[6], &[1, 6, 1]),
        (&[3, 1, 4], &[3, 4]),
        (&[5, 7], &[35]),
        (&[6, 4], &[4, 6]),
        (&[6, 4], &[3, 8]),
        (&[2, 3, 8], &[3, 16]),
        (&[2, 3, 8], &[6, 2, 1, 4]),
    ];
    scores(
        items,
        |i| i.0,
        |b, (_, to), x| (x * x).reshape(to) * given(b, to) + x.reshape(to),
    )
}

fn permute() -> Result<Problem> {
    let items: [(&[usize], &[usize]); 7] = [
        (&[3, 5], &[1, 0]),
        (&[4, 8], &[1, 0]),
        (&[3, 1, 4], &[2, 1, 0]),
        (&[2, 3, 4], &[2, 0, 1]),
        (&[2, 3, 4], &[1, 0, 2]),
        (&[4, 3, 2], &[1, 2, 0]),
        (&[2, 3, 4, 5], &[3, 1, 0, 2]),
    ];
    scores(
        items,
        |i| i.0,
        |b, (from, p), x| {
            let to: Vec<usize> = p.iter().map(|&d| from[d]).collect();
            (x * x).permute(p) * given(b, &to) + x.tanh().permute(p)
        },
    )
}

fn slice() -> Result<Problem> {
    let items: [(&[usize], &[usize], &[usize]); 6] = [
        (&[7], &[2], &[4]),
        (&[12], &[4], &[8]),
        (&[5, 6], &[1, 0], &[3, 6]),
        (&[5, 6], &[0, 2], &[5, 3]),
        (&[4, 12], &[1, 4], &[2, 8]),
        (&[3, 4, 5], &[2, 1, 4], &[1, 2, 1]),
    ];
    scores(
        items,
        |i| i.0,
        |_, (_, starts, to), x| (x * x).slice(starts, to) + x.exp().slice(starts, to),
    )
}

fn pad() -> Result<Problem> {
    let items: [(&[usize], &[usize], &[usize]); 8] = [
        (&[1], &[2], &[5]),
        (&[5], &[0], &[7]),
        (&[4], &[4], &[12]),
        (&[3, 4], &[1, 0], &[5, 4]),
        (&[3, 4], &[1, 2], &[6, 8]),
        (&[3, 1], &[0, 1], &[3, 2]),
        (&[2, 3, 4], &[0, 1, 0], &[2, 5, 4]),
        (&[2, 3, 4], &[1, 0, 3], &[4, 3, 9]),
    ];
    scores(
        items,
        |i| i.0,
        |b, (_, before, to), x| {
            let padded = (x * x).pad(before, to) * given(b, to) + x.cos().pad(before, to);
            // Padding around padding, and a part of it that lies outside the original.
            let wider: Vec<usize> = to.iter().map(|s| s + 2).collect();
            let again = padded.pad(&vec![1; to.len()], &wider);
            let corner = again.slice(&vec![0; to.len()], &vec![1; to.len()]);
            again * 0.5 + corner + (corner + 1.0).broadcast(&wider)
        },
    )
}

fn concat() -> Result<Problem> {
    let items: [(&[usize], usize); 4] = [(&[3], 0), (&[4, 8], 1), (&[3, 5], 0), (&[2, 3, 4], 1)];
    scores(
        items,
        |i| i.0,
        |b, (shape, axis), x| {
            let mut longer = shape.to_vec();
            longer[*axis] += 2;
            x.tanh().concat(&[given(b, &longer), x * x, x], *axis)
        },
    )
}

/// Few terms, many terms, many results; vectors along reduced axes and along kept ones.
const REDUCTIONS: [(&[usize], &[usize]); 14] = [
    (&[7], &[0]),
    (&[5, 7], &[1]),
    (&[5, 7], &[0]),
    (&[4, 8], &[1]),
    (&[4, 8], &[0]),
    (&[3, 4, 5], &[0, 2]),
    (&[3, 4, 8], &[0, 1]),
    (&[2, 3, 4, 4], &[1, 3]),
    (&[6, 100], &[1]),
    (&[101, 6], &[0]),
    (&[100, 8], &[0]),
    (&[3, 11, 2, 7], &[1, 3]),
    (&[2100, 35], &[1]),
    (&[37, 2100], &[0]),
];

fn sum() -> Result<Problem> {
    scores(
        REDUCTIONS,
        |i| i.0,
        |_, (_, axes), x| (x * x - x).sum(axes) * 0.1,
    )
}

/// Half of the reductions: the kernels differ from those of sums in one function.
fn max_over() -> Result<Problem> {
    scores(
        REDUCTIONS.into_iter().skip(1).step_by(2),
        |i| i.0,
        |_, (_, axes), x| (x * x - x * 0.5).max_over(axes),
    )
}

/// Equal largest elements share the derivative: two in the first row, one in the last.
fn shared_maximum() -> Result<Problem> {
    Problem::new(|b| {
        let x = b.parameter("x", &[3, 2]);
        let offsets = b.data(vec![0.0, 0.0, 0.0, 0.0, 0.0, -1.0], &[2, 3, 1]);
        let y = x.broadcast(&[2, 3, 2]) + offsets;
        (score(b, y.max_over(&[0, 2])), None)
    })
}

/// All four ways of storing the operands of `[B,M,K] x [B,K,N]`, for sizes `(B, M, K, N)`.
fn dots(sizes: &[(usize, usize, usize, usize)]) -> Result<Problem> {
    let mut graph = Graph::new();
    let mut loss = graph.constant(0.0, &[]);
    let transposed = |[batch, rows, columns]: [usize; 3], swap: bool| {
        if swap {
            [batch, columns, rows]
        } else {
            [batch, rows, columns]
        }
    };
    for &(batch, m, k, n) in sizes {
        for (left, right) in [(false, false), (false, true), (true, false), (true, true)] {
            let name = format!("{batch} x [{m},{k}] x [{k},{n}], transposed {left} {right}");
            let a = transposed([batch, m, k], left);
            let b = transposed([batch, k, n], right);
            let a = graph.parameter(&format!("left of {name}"), &a)?;
            let b = graph.parameter(&format!("right of {name}"), &b)?;
            let product = graph.dot(a, b, left, right)?;
            loss = add_score(&mut graph, loss, product)?;
        }
    }
    Problem::of_graph(graph, loss, None)
}

fn dot_stored() -> Result<Problem> {
    dots(&[
        (1, 1, 1, 1),
        (1, 3, 5, 7),
        (1, 8, 4, 12),
        (1, 4, 6, 8),
        (3, 5, 8, 3),
    ])
}

/// From 1024 invocations on each makes two blocks of rows: whole pairs here, and half a pair.
fn dot_in_blocks() -> Result<Problem> {
    dots(&[(1, 64, 4, 512), (1, 60, 5, 512)])
}

/// Part of a block, and many small products.
fn dot_in_other_blocks() -> Result<Problem> {
    dots(&[(1, 59, 3, 511), (16, 20, 8, 88)])
}

fn dot_of_views() -> Result<Problem> {
    Problem::new(|b| {
        let x = b.parameter("x", &[6, 8]);
        let y = b.parameter("y", &[8, 12]);
        let z = b.parameter("z", &[3, 4, 8]);
        let w = b.parameter("w", &[4]);
        let split = y.reshape(&[8, 3, 4]).permute(&[1, 0, 2]);
        let terms = [
            // Shared by the batch, on either side.
            z.dot(y),
            x.dot(z.permute(&[0, 2, 1])),
            // Parts, aligned and not.
            x.slice(&[2, 4], &[3, 4]).dot(y.slice(&[4, 4], &[4, 8])),
            x.slice(&[1, 1], &[4, 5]).dot(y.slice(&[3, 1], &[5, 7])),
            z.slice(&[1, 0, 4], &[2, 4, 4])
                .dot(z.slice(&[0, 1, 0], &[2, 2, 4]).permute(&[0, 2, 1])),
            // Exchanged and repeated axes.
            z.permute(&[1, 0, 2])
                .dot(split.slice(&[0, 0, 0], &[1, 8, 4])),
            w.broadcast(&[3, 4])
                .dot(w.reshape(&[4, 1]).broadcast(&[4, 5])),
            // Values that have no buffer until the product asks for one.
            (x * x).dot(y.tanh()),
            x.tanh()
                .permute(&[1, 0])
                .dot((x + 1.0).reshape(&[1, 6, 8]).reshape(&[6, 8])),
            x.pad(&[1, 0], &[8, 8]).dot(y),
            (x + 0.5).reshape(&[8, 6]).dot(x),
        ];
        let zero = b.constant(0.0);
        let loss = terms
            .into_iter()
            .fold(zero, |loss, t| loss + score(b, t * 0.3));
        (loss, None)
    })
}

fn gather_and_scatter_add() -> Result<Problem> {
    // Rows and width of the table, number of indices.
    let sizes = [(1, 1, 1), (5, 3, 7), (5, 4, 9), (6, 8, 40), (9, 30, 3)];
    let mut graph = Graph::new();
    let mut loss = graph.constant(0.0, &[]);
    for (rows, width, count) in sizes {
        let name = format!("[{rows},{width}] at {count}");
        let table = graph.parameter(&format!("table {name}"), &[rows, width])?;
        let values = graph.parameter(&format!("values {name}"), &[count, width])?;
        let indices = graph.input(&name, &[count], DType::U32)?;
        // Rows of a parameter, and rows of something computed.
        let parts = graph.gather(table, indices)?;
        let square = graph.binary(Binary::Mul, table, table)?;
        let squares = graph.gather(square, indices)?;
        let product = graph.binary(Binary::Mul, parts, values)?;
        let mixed = graph.binary(Binary::Add, product, squares)?;
        let added = graph.scatter_add(mixed, indices, rows)?;
        loss = add_score(&mut graph, loss, mixed)?;
        loss = add_score(&mut graph, loss, added)?;
    }
    let mut problem = Problem::of_graph(graph, loss, None)?;
    for (input, (rows, ..)) in problem.inputs.iter_mut().zip(sizes) {
        if let Input::Indices(indices) = input {
            indices
                .iter_mut()
                .for_each(|index| *index = *index * 3 % rows as u32);
        }
    }
    Ok(problem)
}

fn one_hot() -> Result<Problem> {
    Problem::new(|b| {
        let mut loss = b.constant(0.0);
        for (count, classes) in [(1, 5), (6, 8), (130, 12)] {
            let name = format!("{count} of {classes}");
            let x = b.parameter(&name, &[count, classes]);
            let hot = b
                .indices(&format!("labels {name}"), &[count])
                .one_hot(classes);
            let wider = [count + 1, classes + 3];
            let column = hot.slice(&[0, 2], &[1, 1]).broadcast(&[count, classes]);
            let terms = [
                x * hot + hot * 0.5,
                // Some of the classes; classes before the first; classes along the first axis.
                (x * hot).slice(&[0, 1], &[count, 2]) * hot.slice(&[0, 1], &[count, 2]),
                x.pad(&[0, 2], &wider) * hot.pad(&[1, 3], &wider) + hot.pad(&[1, 0], &wider),
                (x * x).permute(&[1, 0]) * hot.permute(&[1, 0]),
                x * column,
            ];
            loss = terms
                .into_iter()
                .fold(loss, |loss, term| loss + score(b, term));
        }
        (loss, None)
    })
}

/// Softmax cross-entropy of two dense layers, with its Gauss-Newton product.
fn classifier() -> Result<Problem> {
    Problem::new(|b| {
        let x = b.input("x", &[16, 12]);
        let labels = b.indices("labels", &[16]);
        let w1 = b.parameter("w1", &[12, 20]);
        let b1 = b.parameter("b1", &[20]);
        let w2 = b.parameter("w2", &[20, 5]);
        let z = (x.dot(w1) + b1).tanh().dot(w2);
        let shifted = z - z.max_over(&[1]).stop_gradient();
        let log_sum = shifted.exp().sum(&[1]).log();
        let losses = ((log_sum - shifted) * labels.one_hot(5)).sum(&[1]);
        (losses.mean(&[0]).reshape(&[]), Some(z))
    })
}

/// Least squares with one matrix used in both layers.
fn tied_regression() -> Result<Problem> {
    Problem::new(|b| {
        let x = b.input("x", &[9, 7]);
        let w = b.parameter("w", &[7, 7]);
        let z = x.dot(w).softplus().dot(w.permute(&[1, 0])) + x.dot(w);
        (
            (z - x).square().sum(&[1]).mean(&[0]).reshape(&[]) * 0.5,
            Some(z),
        )
    })
}
