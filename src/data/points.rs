//! Points at which a differential equation is asked to hold, in terms: the inside of a domain, its boundary, an initial slice.

use rand::RngExt;
use rand::seq::SliceRandom;

use super::{Dataset, Targets};
use crate::random::Philox;
use crate::{Error, Result};

/// First stream of random points: no other part of the crate draws from these.
const STREAM: u64 = 14 << 48;
/// What a Sobol sequence of the library has.
const SOBOL_POINTS: usize = 1 << 16;
const SOBOL_DIMENSIONS: usize = 256;

/// A box with sides parallel to the axes. A side may be a single number: a face of another box, or a slice of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    sides: Vec<[f64; 2]>,
}

impl Region {
    /// The box of these sides, each from a lower to an upper end, or from a number to itself.
    ///
    /// # Errors
    /// [`Error::Option`] without sides, or for an end that is not finite or below the other.
    pub fn new(sides: &[[f64; 2]]) -> Result<Self> {
        let valid = |[low, high]: &[f64; 2]| low.is_finite() && high.is_finite() && low <= high;
        if sides.is_empty() || !sides.iter().all(valid) {
            return Err(Error::Option {
                option: "sides".into(),
                message: format!("{sides:?}; give for each axis a lower and an upper end"),
            });
        }
        Ok(Self {
            sides: sides.to_vec(),
        })
    }

    /// The slice in which the coordinate of an axis has this value; the box itself where there is no such axis.
    #[must_use]
    pub fn slice(&self, axis: usize, value: f64) -> Self {
        let mut slice = self.clone();
        if let Some(side) = slice.sides.get_mut(axis) {
            *side = [value, value];
        }
        slice
    }

    /// The faces across these axes: for each the lower and the upper one.
    #[must_use]
    pub fn faces(&self, axes: &[usize]) -> Vec<Self> {
        let ends = |&axis: &usize| {
            let side = self.sides.get(axis).copied().unwrap_or_default();
            side.map(|end| self.slice(axis, end))
        };
        axes.iter().flat_map(ends).collect()
    }

    /// The point at these shares of the sides.
    fn at(&self, shares: impl Iterator<Item = f64>) -> impl Iterator<Item = f32> {
        let sides = self.sides.iter().zip(shares);
        sides.map(|([low, high], share)| (low + (high - low) * share) as f32)
    }
}

/// How points are spread in a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// Independent and uniform.
    Uniform,
    /// Latin hypercube: along each axis one point in each of as many intervals as there are points (McKay, Beckman and Conover 1979).
    LatinHypercube,
    /// The Sobol sequence with Owen's scrambling by hashes (Burley 2020), of at most 65,536 points in 256 dimensions.
    Sobol,
}

/// A part of an objective: the mean of its rows' losses, times a weight.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// For reports.
    pub name: String,
    /// Of the mean, in the sum of the terms.
    pub weight: f32,
    /// How many points.
    pub points: usize,
    /// Where: the points are dealt to these in turn.
    pub regions: Vec<Region>,
}

impl Term {
    /// A term of weight 1.
    pub fn new(name: impl Into<String>, points: usize, regions: Vec<Region>) -> Self {
        Self {
            name: name.into(),
            weight: 1.0,
            points,
            regions,
        }
    }

    /// The same with another weight.
    #[must_use]
    pub fn with_weight(mut self, weight: f32) -> Self {
        self.weight = weight;
        self
    }
}

/// Points of several terms, drawn as a data set: the inputs of a row are its coordinates, its label is the number of its term, and its weight
/// makes the mean of the losses of all rows `sum_t weight_t mean_t`, with the mean of each term. See
/// [`Scope::by_term`](crate::nn::Scope::by_term).
///
/// ```
/// use osculant::data::{Points, Region, Sampling, Term};
///
/// let square = Region::new(&[[0.0, 1.0]; 2])?;
/// let interior = Term::new("interior", 30, vec![square.clone()]);
/// let boundary = Term::new("boundary", 8, square.faces(&[0, 1])).with_weight(10.0);
/// let points = Points::new("square", vec![interior, boundary], Sampling::Sobol, 1)?;
/// let batch = points.draw(0)?.full_batch();
/// assert_eq!((batch.len(), batch.width()), (38, 2));
/// assert!((batch.total_weight() - 11.0).abs() < 1e-5);
/// # Ok::<(), osculant::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Points {
    name: String,
    terms: Vec<Term>,
    dimensions: usize,
    sampling: Sampling,
    seed: u64,
}

impl Points {
    /// Points of these terms.
    ///
    /// # Errors
    /// [`Error::Option`] without terms, for a term without points or regions, regions of different dimensions, a weight that is not
    /// positive and finite, and more points or dimensions than a Sobol sequence has.
    pub fn new(
        name: impl Into<String>,
        terms: Vec<Term>,
        sampling: Sampling,
        seed: u64,
    ) -> Result<Self> {
        let refused = |message: String| {
            Err(Error::Option {
                option: "terms".into(),
                message,
            })
        };
        let regions = || terms.iter().flat_map(|term| &term.regions);
        let dimensions = regions().next().map_or(0, |region| region.sides.len());
        if dimensions == 0 {
            return refused("none; give at least one with a region".into());
        }
        if regions().any(|region| region.sides.len() != dimensions) {
            return refused("the regions have different numbers of dimensions".into());
        }
        for term in &terms {
            let name = &term.name;
            if term.points == 0 || term.regions.is_empty() {
                return refused(format!("{name} has no points or no regions; leave it out"));
            }
            if !(term.weight.is_finite() && term.weight > 0.0) {
                let weight = term.weight;
                return refused(format!("{name} has weight {weight}; give a positive one"));
            }
            let most = term.points.div_ceil(term.regions.len());
            if sampling == Sampling::Sobol && (most > SOBOL_POINTS || dimensions > SOBOL_DIMENSIONS)
            {
                return refused(format!(
                    "{name} has {most} points of {dimensions} dimensions in a region, and a Sobol sequence {SOBOL_POINTS} of \
                     {SOBOL_DIMENSIONS}; take uniform ones"
                ));
            }
        }
        Ok(Self {
            name: name.into(),
            terms,
            dimensions,
            sampling,
            seed,
        })
    }

    /// The same for another seed.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// The terms, in the order of their labels.
    #[must_use]
    pub fn terms(&self) -> &[Term] {
        &self.terms
    }

    /// The points of this draw, term after term. Equal seeds and numbers give equal points on every machine.
    ///
    /// # Errors
    /// Those of [`Dataset::new`], which there is no reason for.
    pub fn draw(&self, draw: u64) -> Result<Dataset> {
        let rows: usize = self.terms.iter().map(|term| term.points).sum();
        let mut features = Vec::with_capacity(rows * self.dimensions);
        let (mut labels, mut weights) = (Vec::with_capacity(rows), Vec::with_capacity(rows));
        let mut random = Philox::new(self.seed, STREAM.wrapping_add(draw));
        for (label, term) in (0..).zip(&self.terms) {
            let mut places = Vec::with_capacity(term.regions.len());
            for at in 0..term.regions.len() {
                let count = (term.points + term.regions.len() - 1 - at) / term.regions.len();
                places.push(self.shares(count, &mut random));
            }
            for point in 0..term.points {
                let (at, of) = (point % term.regions.len(), point / term.regions.len());
                let shares = places[at].iter().skip(of * self.dimensions);
                features.extend(term.regions[at].at(shares.copied()));
            }
            labels.extend(std::iter::repeat_n(label, term.points));
            let weight = f64::from(term.weight) * rows as f64 / term.points as f64;
            weights.extend(std::iter::repeat_n(weight as f32, term.points));
        }
        let classes = self.terms.len();
        let targets = Targets::Classes { labels, classes };
        Dataset::new(&self.name, features, self.dimensions, targets)?.with_weights(weights)
    }

    /// So many points of the unit cube.
    fn shares(&self, count: usize, random: &mut Philox) -> Vec<f64> {
        let d = self.dimensions;
        match self.sampling {
            Sampling::Uniform => (0..count * d).map(|_| random.random()).collect(),
            Sampling::LatinHypercube => {
                let mut shares = vec![0.0; count * d];
                for axis in 0..d {
                    let mut intervals: Vec<usize> = (0..count).collect();
                    intervals.shuffle(random);
                    for (point, interval) in intervals.into_iter().enumerate() {
                        let inside: f64 = random.random();
                        shares[point * d + axis] = (interval as f64 + inside) / count as f64;
                    }
                }
                shares
            }
            Sampling::Sobol => {
                let scrambling: u32 = random.random();
                let index = |at: usize| ((at / d) as u32, (at % d) as u32);
                let sample = |at| {
                    let (point, axis) = index(at);
                    f64::from(sobol_burley::sample(point, axis, scrambling))
                };
                (0..count * d).map(sample).collect()
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const ALL: [Sampling; 3] = [Sampling::Uniform, Sampling::LatinHypercube, Sampling::Sobol];

    fn points(sampling: Sampling) -> Points {
        let domain = Region::new(&[[0.0, 1.0], [-2.0, 2.0]]).unwrap();
        let terms = vec![
            Term::new("interior", 64, vec![domain.clone()]),
            Term::new("boundary", 10, domain.faces(&[1])).with_weight(0.5),
            Term::new("initial", 5, vec![domain.slice(0, 0.0)]),
        ];
        Points::new("test", terms, sampling, 7).unwrap()
    }

    fn labels(targets: &Targets) -> &[u32] {
        match targets {
            Targets::Classes { labels, classes: 3 } => labels,
            _ => &[],
        }
    }

    #[test]
    fn rows_lie_where_their_term_does() {
        for sampling in ALL {
            let batch = points(sampling).draw(3).unwrap().full_batch();
            let labels = labels(&batch.targets);
            let mut sums = [0.0; 3];
            let rows = batch.features.chunks(2).zip(labels).zip(&batch.weights);
            assert_eq!(labels.len(), 79);
            for (at, ((row, &label), weight)) in rows.enumerate() {
                assert!((0.0..=1.0).contains(&row[0]) && (-2.0..=2.0).contains(&row[1]));
                match label {
                    1 => assert_eq!(row[1], if at % 2 == 0 { -2.0 } else { 2.0 }),
                    2 => assert_eq!(row[0], 0.0),
                    _ => {}
                }
                sums[label as usize] += f64::from(*weight);
            }
            for (sum, expected) in sums.iter().zip([1.0, 0.5, 1.0]) {
                assert!((sum - expected).abs() < 1e-5, "{sampling:?}: {sums:?}");
            }
        }
    }

    #[test]
    fn draws_are_those_of_their_seed_and_number() {
        for sampling in ALL {
            let points = points(sampling);
            assert_eq!(points.draw(3).unwrap(), points.draw(3).unwrap());
            assert_ne!(points.draw(3).unwrap(), points.draw(4).unwrap());
            assert!(points.draw(u64::MAX).is_ok());
            let other = points.clone().with_seed(8);
            assert_ne!(points.draw(3).unwrap(), other.draw(3).unwrap());
        }
    }

    /// Along each axis as many points in each half, eighth and, for 64 points, sixty-fourth: where there are few of a region, no more is said.
    #[test]
    fn hypercubes_and_sobol_points_fill_every_interval_once() {
        for sampling in [Sampling::LatinHypercube, Sampling::Sobol] {
            let data = points(sampling).draw(0).unwrap();
            for (axis, (low, length)) in [(0.0, 1.0), (-2.0, 4.0)].into_iter().enumerate() {
                let mut seen = [0; 64];
                for row in data.features().chunks(2).take(64) {
                    seen[((row[axis] - low) / length * 64.0) as usize % 64] += 1;
                }
                assert_eq!(seen, [1; 64], "{sampling:?}, axis {axis}");
            }
        }
    }

    #[test]
    fn what_makes_no_points_is_refused() {
        let square = || Region::new(&[[0.0, 1.0]; 2]).unwrap();
        assert!(Region::new(&[]).is_err() && Region::new(&[[1.0, 0.0]]).is_err());
        let line = Region::new(&[[0.0, 1.0]]).unwrap();
        let refused = [
            vec![],
            vec![Term::new("none", 0, vec![square()])],
            vec![Term::new("nowhere", 3, vec![])],
            vec![
                Term::new("a", 3, vec![square()]),
                Term::new("b", 3, vec![line]),
            ],
            vec![Term::new("light", 3, vec![square()]).with_weight(0.0)],
            vec![Term::new("many", 70_000, vec![square()])],
        ];
        for terms in refused {
            let error = Points::new("test", terms, Sampling::Sobol, 1).unwrap_err();
            assert!(matches!(error, Error::Option { .. }), "{error}");
        }
    }
}
