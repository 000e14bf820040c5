//! The two-loop recursion in inner products.

/// Inner products of the pairs that are remembered, by their places.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Pairs {
    /// Places, the oldest pair first.
    pub(super) order: Vec<usize>,
    /// `s_i . y_j` in row `i`.
    pub(super) sy: Vec<Vec<f64>>,
    /// `y_i . y_j`
    pub(super) yy: Vec<Vec<f64>>,
}

/// Inner products of a gradient with all `s` and `y`, and with itself.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Along {
    pub(super) s: Vec<f64>,
    pub(super) y: Vec<f64>,
    pub(super) square: f64,
}

/// A combination of all `s`, all `y`, and the gradient.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Combination {
    pub(super) s: Vec<f64>,
    pub(super) y: Vec<f64>,
    pub(super) gradient: f64,
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// A column of a matrix.
fn column(matrix: &[Vec<f64>], at: usize) -> Vec<f64> {
    matrix.iter().map(|row| row[at]).collect()
}

impl Pairs {
    /// Room for so many pairs.
    pub(super) fn new(places: usize) -> Self {
        let zeros = vec![vec![0.0; places]; places];
        Self {
            order: Vec::new(),
            sy: zeros.clone(),
            yy: zeros,
        }
    }

    /// The place of the next pair: a free one, or that of the oldest.
    pub(super) fn next(&self) -> usize {
        let free = (0..self.sy.len()).find(|place| !self.order.contains(place));
        free.or(self.order.first().copied()).unwrap_or(0)
    }

    /// Remembers a pair at its place, of these products with all `s` and `y`, those with itself in the place included.
    pub(super) fn insert(&mut self, place: usize, products: &Products) {
        self.order.retain(|known| *known != place);
        self.order.push(place);
        for other in 0..self.sy.len() {
            self.sy[other][place] = products.s_with_new_y[other];
            self.sy[place][other] = products.y_with_new_s[other];
            self.yy[other][place] = products.y_with_new_y[other];
            self.yy[place][other] = products.y_with_new_y[other];
        }
        let [sy, yy] = products.own;
        (self.sy[place][place], self.yy[place][place]) = (sy, yy);
    }

    /// `-H g` with the inverse `H` of L-BFGS (Nocedal 1980), which starts from `s.y / y.y` of the newest pair times the identity.
    pub(super) fn direction(&self, along: &Along) -> Combination {
        let places = self.sy.len();
        // q, of the gradient and all y.
        let mut y = vec![0.0; places];
        let mut alphas = vec![0.0; places];
        for &i in self.order.iter().rev() {
            let product = along.s[i] + dot(&self.sy[i], &y);
            alphas[i] = product / self.sy[i][i];
            y[i] -= alphas[i];
        }
        let scale = self
            .order
            .last()
            .map_or(1.0, |&i| self.sy[i][i] / self.yy[i][i]);
        let mut s = vec![0.0; places];
        y.iter_mut().for_each(|x| *x *= scale);
        for &i in &self.order {
            let product = scale * along.y[i] + dot(&self.yy[i], &y) + dot(&column(&self.sy, i), &s);
            s[i] += alphas[i] - product / self.sy[i][i];
        }
        let negative = |all: Vec<f64>| all.into_iter().map(|x| -x).collect();
        Combination {
            s: negative(s),
            y: negative(y),
            gradient: -scale,
        }
    }
}

/// Products of a new pair with all others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Products {
    pub(super) s_with_new_y: Vec<f64>,
    pub(super) y_with_new_s: Vec<f64>,
    pub(super) y_with_new_y: Vec<f64>,
    /// `s.y` and `y.y` of the pair itself.
    pub(super) own: [f64; 2],
}

#[cfg(test)]
mod tests {
    use super::*;
    use nalgebra::{DMatrix, DVector};

    /// The inverse by its definition, `H <- (1 - r s y^T) H (1 - r y s^T) + r s s^T`, in place of the recursion; with more pairs than there
    /// are places.
    #[test]
    fn directions_are_those_of_the_matrix() {
        let (n, places) = (6, 3);
        let random = |seed: f64| DVector::from_fn(n, |i, _| (seed * (i as f64 + 1.3)).sin());
        let matrix = DMatrix::from_fn(n, n, |i, j| if i == j { 1.0 + i as f64 } else { 0.1 });
        let steps: Vec<DVector<f64>> = (0..5).map(|k| random(1.0 + f64::from(k))).collect();
        let mut pairs = Pairs::new(places);
        let (mut s, mut y) = (
            vec![DVector::zeros(n); places],
            vec![DVector::zeros(n); places],
        );
        for step in &steps {
            let (place, slope) = (pairs.next(), &matrix * step);
            let with = |all: &[DVector<f64>], x: &DVector<f64>| -> Vec<f64> {
                all.iter().map(|v| v.dot(x)).collect()
            };
            let products = Products {
                s_with_new_y: with(&s, &slope),
                y_with_new_s: with(&y, step),
                y_with_new_y: with(&y, &slope),
                own: [step.dot(&slope), slope.dot(&slope)],
            };
            pairs.insert(place, &products);
            (s[place], y[place]) = (step.clone(), slope);
        }
        assert_eq!(pairs.order, [2, 0, 1]);
        let newest = &steps[4];
        let last = &matrix * newest;
        let one = DMatrix::<f64>::identity(n, n);
        let mut inverse = &one * (newest.dot(&last) / last.dot(&last));
        for step in &steps[2..] {
            let slope = &matrix * step;
            let r = 1.0 / step.dot(&slope);
            let side = &one - r * step * slope.transpose();
            inverse = &side * inverse * side.transpose() + r * step * step.transpose();
        }
        let g = random(0.37);
        let products = |all: &[DVector<f64>]| all.iter().map(|v| v.dot(&g)).collect();
        let along = Along {
            s: products(&s),
            y: products(&y),
            square: g.dot(&g),
        };
        let found = pairs.direction(&along);
        let mut direction = found.gradient * &g;
        for place in 0..places {
            direction += found.s[place] * &s[place] + found.y[place] * &y[place];
        }
        let expected = -inverse * &g;
        assert!((&direction - &expected).norm() < 1e-12 * expected.norm());
    }

    #[test]
    fn without_pairs_it_is_steepest_descent() {
        let along = Along {
            s: vec![0.0; 2],
            y: vec![0.0; 2],
            square: 9.0,
        };
        let found = Pairs::new(2).direction(&along);
        assert_eq!(
            (found.gradient, found.s, found.y),
            (-1.0, vec![0.0; 2], vec![0.0; 2])
        );
    }
}
