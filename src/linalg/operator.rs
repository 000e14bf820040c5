//! Linear operators: products that are recorded or need the host, and how operators make others.

use std::fmt;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice};
use crate::kernels::vector::combine;
use crate::objective::Quadratic;
use crate::random::philox4x32;
use crate::vector::{Entry, Layout, Vector};

/// What the host does in the middle of a product.
type Call = Arc<dyn Fn(&Gpu) -> Result<()> + Send + Sync>;

/// How far, against the lengths of the vectors, a symmetric and linear product may be from that in f32: rounding errors of a product are
/// about 1e-7 times the root of the number of its terms, and a sum over a million terms stays below this.
const PROBE_TOLERANCE: f64 = 1e-4;
/// Seed of the vectors of a probe.
const PROBE_SEED: [u32; 2] = [11, 0];
/// High half of the stream of random numbers of probes: no other part of the crate draws from it.
const STREAM: u32 = 9 << 16;

/// What computes a product: a recording, or several with calls of the host in between, for an all-reduce, micro-batches, or work that is
/// more than one submission may hold.
///
/// Solvers put a recorded product into the middle of their submissions. Where the host is needed, a submission ends: before each call all
/// that comes before has been submitted, and what comes after is submitted after it. The numbers are the same.
///
/// ```
/// use osculant::gpu::Recording;
/// use osculant::linalg::Product;
///
/// let recorded = Product::from(Recording::new());
/// assert!(recorded.recording().is_some());
/// let hosted = Product::hosted(|gpu| gpu.submit(|_| ()));
/// assert!(hosted.recording().is_none());
/// ```
#[derive(Clone, Default)]
pub struct Product {
    /// What is submitted before each call, and the call.
    calls: Vec<(Recording, Call)>,
    /// What is recorded after the last call.
    tail: Recording,
}

impl fmt::Debug for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Product")
            .field("calls", &self.calls.len())
            .field("tail", &self.tail)
            .finish_non_exhaustive()
    }
}

impl From<Recording> for Product {
    fn from(tail: Recording) -> Self {
        Self {
            calls: Vec::new(),
            tail,
        }
    }
}

impl Product {
    /// A product that the host computes with submissions of its own; `call` may end before the device has finished them.
    pub fn hosted(call: impl Fn(&Gpu) -> Result<()> + Send + Sync + 'static) -> Self {
        Self {
            calls: vec![(Recording::new(), Arc::new(call))],
            tail: Recording::new(),
        }
    }

    /// The recording, if the product does not need the host.
    pub fn recording(&self) -> Option<&Recording> {
        self.calls.is_empty().then_some(&self.tail)
    }

    /// Does `other` after this.
    pub fn append(&mut self, other: Self) {
        for (recording, call) in other.calls {
            self.tail.append(recording);
            self.calls.push((std::mem::take(&mut self.tail), call));
        }
        self.tail.append(other.tail);
    }

    /// Where to record what comes after all this.
    pub fn tail(&mut self) -> &mut Recording {
        &mut self.tail
    }

    /// Computes the product: one submission, and one more for each call.
    ///
    /// # Errors
    /// Those of the calls, loss of the device.
    pub fn run(&self, gpu: &Gpu) -> Result<()> {
        run(gpu, &[self.into()])
    }
}

/// A part of what a solver submits.
#[derive(Clone, Copy)]
pub(super) enum Part<'a> {
    Recorded(&'a Recording),
    Product(&'a Product),
}

impl<'a> From<&'a Recording> for Part<'a> {
    fn from(recording: &'a Recording) -> Self {
        Self::Recorded(recording)
    }
}

impl<'a> From<&'a Product> for Part<'a> {
    fn from(product: &'a Product) -> Self {
        Self::Product(product)
    }
}

/// Does everything up to the last call of the host; what is left to submit comes back. Nothing is submitted where no part needs the host.
pub(super) fn until_last_call<'a>(gpu: &Gpu, parts: &[Part<'a>]) -> Result<Vec<&'a Recording>> {
    let mut left = Vec::new();
    for part in parts {
        match *part {
            Part::Recorded(recording) => left.push(recording),
            Part::Product(product) => {
                for (recording, call) in &product.calls {
                    left.push(recording);
                    submit(gpu, &left)?;
                    left.clear();
                    call(gpu)?;
                }
                left.push(&product.tail);
            }
        }
    }
    Ok(left)
}

/// Does all parts, in one submission where none needs the host.
pub(super) fn run(gpu: &Gpu, parts: &[Part<'_>]) -> Result<()> {
    submit(gpu, &until_last_call(gpu, parts)?)
}

fn submit(gpu: &Gpu, recordings: &[&Recording]) -> Result<()> {
    if recordings.iter().all(|r| r.commands().is_empty()) {
        return Ok(());
    }
    gpu.submit(|recorder| {
        for recording in recordings {
            recorder.replay(recording);
        }
    })
}

/// A symmetric linear operator `C` on parameter space: `multiply` writes `C input` to `output`, and leaves `input` as it is.
#[derive(Clone, Debug)]
pub struct Operator {
    /// `v`; the solver writes its directions here.
    pub input: Vector,
    /// `C v`.
    pub output: Vector,
    /// The product.
    pub multiply: Product,
}

impl From<&Quadratic> for Operator {
    fn from(quadratic: &Quadratic) -> Self {
        Self {
            input: quadratic.direction.clone(),
            output: quadratic.product.clone(),
            multiply: quadratic.multiply.clone().into(),
        }
    }
}

/// Numbers in an operator, on the device, which may be set anew between products.
#[derive(Clone, Debug)]
pub struct Scalars {
    slice: Slice,
    /// What the buffer holds, with zeros in the places of the numbers.
    template: Vec<f32>,
    places: Vec<usize>,
}

impl Scalars {
    fn new(gpu: &Gpu, label: &str, template: Vec<f32>, places: Vec<usize>) -> Result<Self> {
        Ok(Self {
            slice: gpu.buffer(label, template.len())?,
            template,
            places,
        })
    }

    /// Sets the numbers, rounded to f32; products submitted before keep those of then.
    ///
    /// # Errors
    /// [`Error::Length`] for another count, loss of the device.
    pub fn set(&self, gpu: &Gpu, values: &[f64]) -> Result<()> {
        if values.len() != self.places.len() {
            return Err(Error::Length {
                what: format!("the numbers of '{}'", self.slice.label()),
                found: values.len(),
                expected: self.places.len(),
            });
        }
        let mut numbers = self.template.clone();
        for (&place, &value) in self.places.iter().zip(values) {
            numbers[place] = value as f32;
        }
        gpu.upload(&self.slice, 0, &numbers)
    }
}

impl Scalars {
    /// The coefficients of a sum of `count` terms, one at least.
    pub(crate) fn of_sum(gpu: &Gpu, count: usize) -> Result<Self> {
        // The first term is c x + 0 x, the others add c x to what is there.
        let mut template = [1.0, 0.0].repeat(count);
        template[0] = 0.0;
        let places = (0..count).map(|i| 2 * i + usize::from(i > 0));
        Self::new(gpu, "coefficients of a sum", template, places.collect())
    }

    /// Whether both are handles of the same numbers.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        self.slice.buffer() == other.slice.buffer()
    }

    /// Records the sum of vectors with the coefficients of a sum of as many operators, into the first of two places between which it
    /// changes.
    pub(crate) fn record_sum(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        vectors: &[&Slice],
        places: [&Slice; 2],
    ) -> Result<()> {
        (0..vectors.len())
            .try_for_each(|number| self.record_term(gpu, recording, vectors, places, number))
    }

    /// Records its term of this number, after those before.
    fn record_term(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        vectors: &[&Slice],
        places: [&Slice; 2],
        number: usize,
    ) -> Result<()> {
        // The last term ends in the first place.
        let place = |number: usize| places[(vectors.len() - 1 - number) % 2];
        let term = vectors[number];
        let from = number.checked_sub(1).map_or(term, place);
        let factors = (&self.slice, 2 * number);
        combine(gpu, recording, place(number), from, term, factors)
    }
}

/// What [`Operator::probe`] asks of a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Property {
    /// The same bits twice.
    Repeatable,
    /// `C (2 v) = 2 C v`.
    Linear,
    /// `u . C v = v . C u`.
    Symmetric,
}

impl fmt::Display for Property {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Repeatable => "repeatable (the same product twice)",
            Self::Linear => "linear (C(2v) = 2Cv)",
            Self::Symmetric => "symmetric (u.Cv = v.Cu)",
        })
    }
}

impl Operator {
    /// `scale C + shift`, and its two numbers `[scale, shift]`, to be set before the first product. `3 P` flops and `12 P` bytes moved
    /// beyond those of `C`; allocates a vector, `4 P` bytes. It shares the input of `C`.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`].
    pub fn shifted(&self, gpu: &Gpu) -> Result<(Self, Scalars)> {
        let scalars = Scalars::new(gpu, "scale and shift", vec![0.0; 2], vec![0, 1])?;
        let output = Vector::new(gpu, "shifted product", self.output.layout())?;
        let mut multiply = self.multiply.clone();
        combine(
            gpu,
            multiply.tail(),
            output.slice(),
            self.output.slice(),
            self.input.slice(),
            (&scalars.slice, 0),
        )?;
        let operator = Self {
            input: self.input.clone(),
            output,
            multiply,
        };
        Ok((operator, scalars))
    }

    /// `sum over i of c_i C_i`, and the numbers `c`, to be set before the first product. `3 P` flops and `20 P` bytes moved for each term
    /// beyond those of the products; allocates three vectors, `12 P` bytes. Terms may share vectors: each is added before the next is
    /// computed.
    ///
    /// # Errors
    /// [`Error::Length`] for no terms or terms of different lengths, limits of the device, [`Error::OutOfMemory`].
    pub fn sum(gpu: &Gpu, terms: &[Self]) -> Result<(Self, Scalars)> {
        layout_of(terms)?;
        let scalars = Scalars::of_sum(gpu, terms.len())?;
        Ok((Self::sum_with(gpu, terms, &scalars)?, scalars))
    }

    /// As [`sum`](Self::sum), with numbers that others use as well.
    pub(crate) fn sum_with(gpu: &Gpu, terms: &[Self], scalars: &Scalars) -> Result<Self> {
        let layout = layout_of(terms)?;
        let new = |label: &str| Vector::new(gpu, label, layout);
        let (input, output, other) = (new("direction")?, new("sum")?, new("sum of some terms")?);
        let mut multiply = Product::default();
        let outputs: Vec<&Slice> = terms.iter().map(|term| term.output.slice()).collect();
        for (number, term) in terms.iter().enumerate() {
            multiply.tail().copy(input.slice(), term.input.slice())?;
            multiply.append(term.multiply.clone());
            let places = [output.slice(), other.slice()];
            scalars.record_term(gpu, multiply.tail(), &outputs, places, number)?;
        }
        let operator = Self {
            input,
            output,
            multiply,
        };
        Ok(operator)
    }

    /// `C_n .. C_2 C_1`, the first of `factors` first. `8 P` bytes moved for each factor, and one more, beyond those of the products;
    /// allocates two vectors, `8 P` bytes. A factor may come more than once.
    ///
    /// # Errors
    /// [`Error::Length`] for no factors or factors of different lengths, limits of the device, [`Error::OutOfMemory`].
    pub fn chain(gpu: &Gpu, factors: &[Self]) -> Result<Self> {
        let layout = layout_of(factors)?;
        let input = Vector::new(gpu, "direction", layout)?;
        let output = Vector::new(gpu, "product", layout)?;
        let mut multiply = Product::default();
        let mut from = &input;
        for factor in factors {
            if !from.is_same(&factor.input) {
                let recording = multiply.tail();
                recording.copy(from.slice(), factor.input.slice())?;
            }
            multiply.append(factor.multiply.clone());
            from = &factor.output;
        }
        multiply.tail().copy(from.slice(), output.slice())?;
        Ok(Self {
            input,
            output,
            multiply,
        })
    }

    /// Looks once whether products, after `before`, are what solvers rely on: the same bits twice, linear, symmetric. Four products, with
    /// blocking readbacks of whole vectors; for a product of a caller's own, before a long run.
    ///
    /// Rounding is allowed for: `|C(2v) - 2 C v| <= 2e-4 |C v|` and `|u.Cv - v.Cu| <= 1e-4 (|u| |Cv| + |v| |Cu|)`.
    ///
    /// # Errors
    /// [`Error::Operator`] naming the first property that is missing, [`Error::NotFinite`] where a product is not finite, loss of the
    /// device.
    pub fn probe(&self, gpu: &Gpu, before: &Recording) -> Result<()> {
        gpu.submit(|recorder| recorder.replay(before))?;
        let draw = |vector: u32| -> Vec<Vec<f32>> {
            let entries = self.input.layout().entries().iter().zip(0..);
            let uniform = |word: u32| f64::from(word) / f64::from(u32::MAX) - 0.5;
            let number = |tensor: u32, i: usize| {
                uniform(philox4x32([i as u32, tensor, vector, STREAM], PROBE_SEED)[0]) as f32
            };
            let tensor = |(entry, tensor): (&Entry, u32)| {
                (0..entry.elements()).map(|i| number(tensor, i)).collect()
            };
            entries.map(tensor).collect()
        };
        let (u, v) = (draw(0), draw(1));
        let twice: Vec<Vec<f32>> = v
            .iter()
            .map(|t| t.iter().map(|x| 2.0 * x).collect())
            .collect();
        let product = |vector: &[Vec<f32>]| -> Result<Vec<f32>> {
            self.input.write(gpu, vector)?;
            self.multiply.run(gpu)?;
            let found = self.output.read(gpu)?.concat();
            if found.iter().all(|x| x.is_finite()) {
                Ok(found)
            } else {
                Err(super::scale::not_finite_product())
            }
        };
        let first = product(&v)?;
        let second = product(&v)?;
        let different = first
            .iter()
            .zip(&second)
            .filter(|(a, b)| a.to_bits() != b.to_bits());
        check(Property::Repeatable, different.count() as f64, 0.0)?;
        let doubled = product(&twice)?;
        let off = first
            .iter()
            .zip(&doubled)
            .map(|(a, b)| (2.0 * f64::from(*a) - f64::from(*b)).powi(2));
        let length = norm(&first);
        check(
            Property::Linear,
            off.sum::<f64>().sqrt(),
            2.0 * PROBE_TOLERANCE * length,
        )?;
        let other = product(&u)?;
        let (u, v) = (u.concat(), v.concat());
        check(
            Property::Symmetric,
            (dot(&u, &first) - dot(&v, &other)).abs(),
            PROBE_TOLERANCE * (norm(&u) * length + norm(&v) * norm(&other)),
        )
    }
}

fn check(property: Property, found: f64, allowed: f64) -> Result<()> {
    if found <= allowed {
        return Ok(());
    }
    Err(Error::Operator {
        property,
        found,
        allowed,
    })
}

fn dot(a: &[f32], b: &[f32]) -> f64 {
    a.iter()
        .zip(b)
        .map(|(x, y)| f64::from(*x) * f64::from(*y))
        .sum()
}

fn norm(a: &[f32]) -> f64 {
    dot(a, a).sqrt()
}

/// The layout of the first of some operators.
fn layout_of(operators: &[Operator]) -> Result<&Arc<Layout>> {
    let first = operators.first().ok_or_else(|| Error::Length {
        what: "the list of operators".into(),
        found: 0,
        expected: 1,
    })?;
    Ok(first.input.layout())
}
