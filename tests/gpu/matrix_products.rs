//! Every kernel for matrix products that an adapter can run, on shapes, layouts, batches and slices, against f64.

use crate::harness::compare::{Input, OnDevice, Problem, uniform};
use crate::harness::{GpuTest, Outcome};
use osculant::gpu::Gpu;
use osculant::graph::{DType, Graph, NodeId};
use osculant::kernels::tuning::{Capabilities, Class, Entry, Family, Layout, Tuning};
use osculant::random::Philox;

pub(crate) fn tests() -> Vec<GpuTest> {
    let mut tests = gpu_tests![
        tables_choose_the_nearest_class_and_survive_a_file,
        tables_of_other_adapters_and_versions_are_refused,
        what_a_device_cannot_run_falls_back,
        same_tuning_same_bits,
        sums_in_parts,
    ];
    tests.extend(
        SHAPES
            .iter()
            .enumerate()
            .map(|(index, &shape)| GpuTest::new(shape.name, move |gpu| check_families(gpu, index))),
    );
    tests
}

/// How an operand lies in its buffer.
#[derive(Clone, Copy, PartialEq)]
enum Batch {
    /// A matrix for each element of the batch.
    Own,
    /// One matrix for all: stride 0.
    Shared,
    /// A part of a larger tensor that starts at an element whose address is a multiple of four.
    AlignedSlice,
    /// A part of a larger tensor, anywhere.
    Slice,
}

#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    lhs: Batch,
    rhs: Batch,
    /// Whether every kernel computes this product, in one layout. Else every eighth of those with small tiles does, beginning with another
    /// one for each shape and layout: compilers take long over large tiles, and all kernels share their loads and stores.
    all: bool,
}

const fn shape(name: &'static str, sizes: [usize; 4], lhs: Batch, rhs: Batch, all: bool) -> Shape {
    let [batch, m, n, k] = sizes;
    Shape {
        name,
        batch,
        m,
        n,
        k,
        lhs,
        rhs,
        all,
    }
}

use Batch::{AlignedSlice, Own, Shared, Slice};

/// Names are batch x rows x columns x terms.
const SHAPES: [Shape; 16] = [
    shape("1x1x1x1", [1, 1, 1, 1], Own, Own, false),
    shape("1x4x4x4", [1, 4, 4, 4], Own, Own, false),
    shape("2x7x5x3", [2, 7, 5, 3], Own, Own, false),
    shape("1x70x69x67, all kernels", [1, 70, 69, 67], Own, Own, true),
    shape("1x64x32x64", [1, 64, 32, 64], Own, Own, false),
    shape(
        "1x132x136x20, all kernels",
        [1, 132, 136, 20],
        Own,
        Own,
        true,
    ),
    shape("1x67x10x32", [1, 67, 10, 32], Own, Own, false),
    shape("1x10x67x30", [1, 10, 67, 30], Own, Own, false),
    shape("1x1x130x9", [1, 1, 130, 9], Own, Own, false),
    shape("1x130x1x9", [1, 130, 1, 9], Own, Own, false),
    shape(
        "1x12x16x3001, long sums",
        [1, 12, 16, 3001],
        Own,
        Own,
        false,
    ),
    shape(
        "3x20x24x16, left operand shared",
        [3, 20, 24, 16],
        Shared,
        Own,
        false,
    ),
    shape(
        "3x33x37x18, right operand shared",
        [3, 33, 37, 18],
        Own,
        Shared,
        false,
    ),
    shape(
        "2x36x40x12, aligned slices",
        [2, 36, 40, 12],
        AlignedSlice,
        AlignedSlice,
        false,
    ),
    shape("2x35x41x13, slices", [2, 35, 41, 13], Slice, Slice, false),
    shape("2x40x44x8, mixed", [2, 40, 44, 8], Slice, Shared, false),
];

/// A leaf with values, and the operand `[batch, rows, columns]` of the product that is read from it.
fn operand(
    graph: &mut Graph,
    name: &str,
    random: &mut Philox,
    [batch, rows, columns]: [usize; 3],
    place: Batch,
) -> osculant::Result<(NodeId, Vec<f32>, Vec<f32>)> {
    let (stored, start) = match place {
        Own => ([batch, rows, columns], [0; 3]),
        Shared => ([1, rows, columns], [0; 3]),
        AlignedSlice => (
            [batch + 1, rows + 4, columns.next_multiple_of(4) + 8],
            [1, 2, 4],
        ),
        Slice => ([batch + 2, rows + 3, columns + 2], [1, 2, 1]),
    };
    let leaf = graph.input(name, &stored, DType::F32)?;
    let values = uniform(random, stored.iter().product());
    let node = match place {
        Own => leaf,
        Shared => graph.broadcast(leaf, &[batch, rows, columns])?,
        AlignedSlice | Slice => graph.slice(leaf, &start, &[batch, rows, columns])?,
    };
    let mut seen = Vec::new();
    for b in 0..batch {
        for i in 0..rows {
            for j in 0..columns {
                let b = if place == Shared { 0 } else { b + start[0] };
                let row = b * stored[1] + i + start[1];
                seen.push(values[row * stored[2] + j + start[2]]);
            }
        }
    }
    Ok((node, values, seen))
}

struct Product {
    problem: Problem,
    node: NodeId,
    expected: Vec<f64>,
    /// Sum of the absolute values of the terms, for each element.
    magnitude: Vec<f64>,
}

fn product(shape: Shape, transpose_lhs: bool, transpose_rhs: bool) -> osculant::Result<Product> {
    let Shape { batch, m, n, k, .. } = shape;
    let mut graph = Graph::new();
    let mut random = Philox::new(11, 1 << 32);
    let oriented = |rows, columns, transpose| {
        if transpose {
            [batch, columns, rows]
        } else {
            [batch, rows, columns]
        }
    };
    let (lhs, a_values, a) = operand(
        &mut graph,
        "a",
        &mut random,
        oriented(m, k, transpose_lhs),
        shape.lhs,
    )?;
    let (rhs, b_values, b) = operand(
        &mut graph,
        "b",
        &mut random,
        oriented(k, n, transpose_rhs),
        shape.rhs,
    )?;
    let node = graph.dot(lhs, rhs, transpose_lhs, transpose_rhs)?;
    let loss = graph.sum(node, &[0, 1, 2])?;
    let mut problem = Problem::of_graph(graph, loss, None)?;
    problem.inputs = vec![Input::Floats(a_values), Input::Floats(b_values)];
    let (mut expected, mut magnitude) = (Vec::new(), Vec::new());
    for batch in 0..batch {
        for row in 0..m {
            for column in 0..n {
                let (mut sum, mut size) = (0.0, 0.0);
                for t in 0..k {
                    let at_a = if transpose_lhs {
                        t * m + row
                    } else {
                        row * k + t
                    };
                    let at_b = if transpose_rhs {
                        column * k + t
                    } else {
                        t * n + column
                    };
                    let term =
                        f64::from(a[batch * m * k + at_a]) * f64::from(b[batch * k * n + at_b]);
                    sum += term;
                    size += term.abs();
                }
                expected.push(sum);
                magnitude.push(size);
            }
        }
    }
    Ok(Product {
        problem,
        node,
        expected,
        magnitude,
    })
}

impl Product {
    fn run(&self, gpu: &Gpu) -> std::result::Result<Vec<f32>, Box<dyn std::error::Error>> {
        let device = OnDevice::new(gpu, &self.problem, &[self.node])?;
        Ok(device.run(gpu, &[], true)?.concat())
    }

    /// A sum of k products, in whatever order, is off by at most k units of rounding of the sum of absolute values (Higham 2002, section
    /// 3.1).
    fn check(&self, found: &[f32], k: usize) -> std::result::Result<(), String> {
        if found.len() != self.expected.len() {
            return Err(format!(
                "{} elements, expected {}",
                found.len(),
                self.expected.len()
            ));
        }
        let unit = f64::from(f32::EPSILON) / 2.0;
        let bound = (k + 1) as f64 * unit;
        for (i, &found) in found.iter().enumerate() {
            let error = (f64::from(found) - self.expected[i]).abs();
            if error.is_nan() || error > bound * self.magnitude[i] {
                return Err(format!(
                    "element {i} is {found:e}, expected {:e}; error {error:.1e}, bound {:.1e}",
                    self.expected[i],
                    bound * self.magnitude[i]
                ));
            }
        }
        Ok(())
    }
}

fn check_families(gpu: &Gpu, index: usize) -> Outcome {
    let shape = SHAPES[index];
    let families = Family::all(&Capabilities::of(gpu));
    for (layout, (transpose_lhs, transpose_rhs)) in
        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .enumerate()
    {
        let product = product(shape, transpose_lhs, transpose_rhs)?;
        for (number, &family) in families.iter().enumerate() {
            let chosen = if shape.all {
                layout == index / 2 % 4
            } else {
                let large =
                    matches!(family, Family::Subgroup(tile) if tile.rows * tile.vectors > 32);
                !large && (number + 3 * index + layout).is_multiple_of(8)
            };
            if !chosen {
                continue;
            }
            let found = product.run(&gpu.with_tuning(Tuning::forced(family))?)?;
            product.check(&found, shape.k).map_err(|message| {
                format!("{family}, transposed: {transpose_lhs}, {transpose_rhs}: {message}")
            })?;
        }
    }
    Ok(())
}

fn tables_choose_the_nearest_class_and_survive_a_file(gpu: &Gpu) -> Outcome {
    let blocks = |blocks| Family::Registers {
        blocks,
        wide: false,
    };
    let entries = vec![
        Entry {
            class: Class::new(1, 64, 32, 64, Layout::Nn),
            kernel: blocks(1),
        },
        Entry {
            class: Class::new(1, 1024, 1024, 1024, Layout::Nn),
            kernel: blocks(2),
        },
    ];
    let table = Tuning::table(gpu, entries);
    let capabilities = Capabilities::of(gpu);
    let choose = |table: &Tuning, size: usize, layout| {
        table.choose(&capabilities, Class::new(1, size, size, size, layout))
    };
    assert_eq!(choose(&table, 30, Layout::Nn), Some(blocks(1)));
    assert_eq!(choose(&table, 700, Layout::Nn), Some(blocks(2)));
    // No entry of this layout: sizes decide.
    assert_eq!(choose(&table, 2000, Layout::Tt), Some(blocks(2)));
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tuning.json");
    table.write(&path)?;
    let again = Tuning::read(&path)?;
    assert_eq!(again, table);
    gpu.with_tuning(again)?;
    Ok(())
}

fn tables_of_other_adapters_and_versions_are_refused(gpu: &Gpu) -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("tuning.json");
    Tuning::table(gpu, Vec::new()).write(&path)?;
    let text = std::fs::read_to_string(&path)?;
    let expect = |outcome: osculant::Result<String>, words: &str| match outcome {
        Err(error) if error.to_string().contains(words) => Ok(()),
        other => Err(format!("expected '{words}', found {other:?}")),
    };
    let name = gpu.info().name.clone();
    std::fs::write(&path, text.replace(&name, "another"))?;
    expect(
        Tuning::read(&path)
            .and_then(|tuning| gpu.with_tuning(tuning))
            .map(|_| String::new()),
        "osculant tune",
    )?;
    let version = format!("\"{}\"", env!("CARGO_PKG_VERSION"));
    std::fs::write(&path, text.replace(&version, "\"0.0.1\""))?;
    expect(Tuning::read(&path).map(|_| String::new()), "version 0.0.1")?;
    std::fs::write(&path, "{}")?;
    expect(Tuning::read(&path).map(|_| String::new()), "osculant tune")?;
    expect(
        Tuning::read(&folder.path().join("none.json")).map(|_| String::new()),
        "none.json",
    )?;
    Ok(())
}

fn what_a_device_cannot_run_falls_back(gpu: &Gpu) -> Outcome {
    let elsewhere = Capabilities {
        subgroup_size: Some(if gpu.info().subgroup_min_size == 64 {
            32
        } else {
            64
        }),
        ..Capabilities::default()
    };
    let family = Family::all(&elsewhere)
        .into_iter()
        .find(|family| matches!(family, Family::Subgroup(_)))
        .ok_or("no subgroup kernel")?;
    let product = product(SHAPES[4], false, false)?;
    let forced = product.run(&gpu.with_tuning(Tuning::forced(family))?)?;
    let builtin = product.run(&gpu.with_tuning(Tuning::builtin())?)?;
    assert_eq!(forced, builtin);
    Ok(())
}

fn same_tuning_same_bits(gpu: &Gpu) -> Outcome {
    let product = product(SHAPES[3], true, false)?;
    let gpu = gpu.with_tuning(Tuning::builtin())?;
    assert_eq!(product.run(&gpu)?, product.run(&gpu)?);
    Ok(())
}

/// Products with their terms in parts: a kernel for equal parts, one for the rest if there is one, and one that adds them; the result
/// within the bound. The built-in kernel where there are fewer than four terms for each part.
fn sums_in_parts(gpu: &Gpu) -> Outcome {
    // With the number of kernels for 4 and for 16 parts.
    let shapes = [
        ([1, 12, 16, 512], Own, [2, 2]),
        ([1, 37, 10, 256], Own, [2, 2]),
        ([1, 66, 70, 64], AlignedSlice, [2, 2]),
        ([1, 9, 7, 128], Slice, [2, 2]),
        // Five parts of 100 terms; 15 of 32, and 20 terms.
        ([1, 12, 16, 500], Own, [2, 3]),
        ([2, 12, 16, 512], Own, [2, 2]),
        // Three parts of 60 terms, and 27; twelve of 16, and 15.
        ([3, 33, 10, 207], Slice, [3, 3]),
        ([2, 5, 8, 101], AlignedSlice, [3, 3]),
        ([2, 8, 36, 203], Shared, [3, 3]),
        ([1, 12, 16, 15], Own, [1, 1]),
    ];
    let splits = Family::all(&Capabilities::of(gpu))
        .into_iter()
        .filter(|family| matches!(family, Family::Split { .. }));
    for family in splits.collect::<Vec<_>>() {
        for (index, (sizes, place, expected)) in shapes.into_iter().enumerate() {
            let product = product(
                shape("in parts", sizes, place, place, false),
                index % 2 == 0,
                index % 3 == 0,
            )?;
            let forced = gpu.with_tuning(Tuning::forced(family))?;
            let device = OnDevice::new(&forced, &product.problem, &[product.node])?;
            let kernels = device.executable.linearize.dispatches();
            let many = matches!(family, Family::Split { parts: 16, .. });
            if kernels != expected[usize::from(many)] {
                return Err(format!("{family}: {kernels} kernels for {sizes:?}").into());
            }
            let found = device.run(&forced, &[], true)?.concat();
            product
                .check(&found, sizes[3])
                .map_err(|message| format!("{family}, {sizes:?}: {message}"))?;
        }
    }
    Ok(())
}
