//! Linear operators, and how they make others.

use crate::error::{Error, Result};
use crate::gpu::{Gpu, Recording, Slice, Work};
use crate::kernels::vector::combine;
use crate::objective::{BlockProduct, Quadratic};
use crate::vector::{Block, Vector};

/// Where an operator takes its vectors from and puts them: one vector, or a block of them.
pub trait Places: Clone + sealed::Sealed {
    /// New ones like these.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`].
    fn like(&self, gpu: &Gpu, label: &str) -> Result<Self>;

    /// The vectors.
    fn vectors(&self) -> &[Vector];

    /// All of them, one after another.
    fn slice(&self) -> &Slice;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for crate::vector::Vector {}
    impl Sealed for crate::vector::Block {}
}

impl Places for Vector {
    fn like(&self, gpu: &Gpu, label: &str) -> Result<Self> {
        Self::new(gpu, label, self.layout())
    }

    fn vectors(&self) -> &[Vector] {
        std::slice::from_ref(self)
    }

    fn slice(&self) -> &Slice {
        self.slice()
    }
}

impl Places for Block {
    fn like(&self, gpu: &Gpu, label: &str) -> Result<Self> {
        Self::new(gpu, label, self.layout(), self.width())
    }

    fn vectors(&self) -> &[Vector] {
        self.vectors()
    }

    fn slice(&self) -> &Slice {
        self.slice()
    }
}

/// A symmetric linear operator `C` on parameter space: `multiply` writes `C v` to `output` for every `v` in `input`, and leaves `input` as
/// it is. Of one vector, or of a block of them.
#[derive(Clone, Debug)]
pub struct Operator<V = Vector> {
    /// `v`; the solver writes its directions here.
    pub input: V,
    /// `C v`.
    pub output: V,
    /// The product.
    pub multiply: Work,
}

impl From<&BlockProduct> for Operator<Block> {
    fn from(block: &BlockProduct) -> Self {
        Self {
            input: block.directions.clone(),
            output: block.products.clone(),
            multiply: block.multiply.clone(),
        }
    }
}

impl From<&Quadratic> for Operator {
    fn from(quadratic: &Quadratic) -> Self {
        Self {
            input: quadratic.direction.clone(),
            output: quadratic.product.clone(),
            multiply: quadratic.multiply.clone(),
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

    /// Records the sum of slices with the coefficients of a sum of as many operators, into the first of two places between which it
    /// changes.
    pub(crate) fn record_sum(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        terms: &[&Slice],
        places: [&Slice; 2],
    ) -> Result<()> {
        let record = |(number, term): (usize, &&Slice)| {
            self.record_term(gpu, recording, term, places, (number, terms.len()))
        };
        terms.iter().enumerate().try_for_each(record)
    }

    /// Records the term of this number among so many, after those before.
    fn record_term(
        &self,
        gpu: &Gpu,
        recording: &mut Recording,
        term: &Slice,
        places: [&Slice; 2],
        (number, count): (usize, usize),
    ) -> Result<()> {
        // The last term ends in the first place.
        let place = |number: usize| places[(count - 1 - number) % 2];
        let from = number.checked_sub(1).map_or(term, place);
        let factors = (&self.slice, 2 * number);
        combine(gpu, recording, place(number), from, term, factors)
    }
}

impl<V: Places> Operator<V> {
    /// `scale C + shift`, and its two numbers `[scale, shift]`, to be set before the first product. For each vector `3 P` flops and `12 P`
    /// bytes moved beyond those of `C`; allocates as many vectors, `4 P` bytes each. It shares the input of `C`.
    ///
    /// # Errors
    /// Limits of the device, [`Error::OutOfMemory`].
    pub fn shifted(&self, gpu: &Gpu) -> Result<(Self, Scalars)> {
        let scalars = Scalars::new(gpu, "scale and shift", vec![0.0; 2], vec![0, 1])?;
        let output = self.output.like(gpu, "shifted product")?;
        let mut multiply = self.multiply.clone();
        let terms = self.output.vectors().iter().zip(self.input.vectors());
        for (shifted, (product, input)) in output.vectors().iter().zip(terms) {
            let (out, x, y) = (shifted.slice(), product.slice(), input.slice());
            combine(gpu, multiply.tail(), out, x, y, (&scalars.slice, 0))?;
        }
        let operator = Self {
            input: self.input.clone(),
            output,
            multiply,
        };
        Ok((operator, scalars))
    }

    /// `sum over i of c_i C_i`, and the numbers `c`, to be set before the first product. `3 P` flops and `20 P` bytes moved for each term
    /// beyond those of the products; allocates three times the vectors of `input`, `12 P` bytes for each. Terms may share vectors: each is
    /// added before the next is computed.
    ///
    /// # Errors
    /// [`Error::Length`] for no terms or terms of different lengths, limits of the device, [`Error::OutOfMemory`].
    pub fn sum(gpu: &Gpu, terms: &[Self]) -> Result<(Self, Scalars)> {
        first(terms)?;
        let scalars = Scalars::of_sum(gpu, terms.len())?;
        Ok((Self::sum_with(gpu, terms, &scalars)?, scalars))
    }

    /// As [`sum`](Self::sum), with numbers that others use as well.
    pub(crate) fn sum_with(gpu: &Gpu, terms: &[Self], scalars: &Scalars) -> Result<Self> {
        let like = &first(terms)?.input;
        let (input, output) = (like.like(gpu, "direction")?, like.like(gpu, "sum")?);
        let other = like.like(gpu, "sum of some terms")?;
        let mut multiply = Work::new();
        for (number, term) in terms.iter().enumerate() {
            multiply.tail().copy(input.slice(), term.input.slice())?;
            multiply.append(term.multiply.clone());
            let places = output.vectors().iter().zip(other.vectors());
            for (product, (output, other)) in term.output.vectors().iter().zip(places) {
                let places = [output.slice(), other.slice()];
                let place = (number, terms.len());
                scalars.record_term(gpu, multiply.tail(), product.slice(), places, place)?;
            }
        }
        Ok(Self {
            input,
            output,
            multiply,
        })
    }

    /// `C_n .. C_2 C_1`, the first of `factors` first. `8 P` bytes moved for each factor, and one more, beyond those of the products;
    /// allocates twice the vectors of `input`, `8 P` bytes for each. A factor may come more than once.
    ///
    /// # Errors
    /// [`Error::Length`] for no factors or factors of different lengths, limits of the device, [`Error::OutOfMemory`].
    pub fn chain(gpu: &Gpu, factors: &[Self]) -> Result<Self> {
        let like = &first(factors)?.input;
        let (input, output) = (like.like(gpu, "direction")?, like.like(gpu, "product")?);
        let mut multiply = Work::new();
        let mut from = &input;
        for factor in factors {
            let (from_slice, to) = (from.slice(), factor.input.slice());
            let same = (from_slice.buffer(), from_slice.offset()) == (to.buffer(), to.offset());
            if !same {
                multiply.tail().copy(from_slice, to)?;
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
}

/// The first of some operators.
fn first<V>(operators: &[Operator<V>]) -> Result<&Operator<V>> {
    operators.first().ok_or_else(|| Error::Length {
        what: "the list of operators".into(),
        found: 0,
        expected: 1,
    })
}
