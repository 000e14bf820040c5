//! From strokes of a pen to a picture like those of the digits.
//!
//! The forms behind the data were scanned and cut, and then made alike. Each digit was scaled to 20 pixels of width and 32 of height, but for
//! bars, which stay bars; sheared until the leftmost dark pixels of the top row and of the bottom row were above each other; put into the
//! middle of 32x32; and its strokes were made thinner or thicker until about 3 of 10 pixels were dark, whatever the digit. Then the dark
//! pixels of each block of 4x4 were counted. (All of that can be measured in the data: heights are full, widths but for the ones are 20,
//! the two pixels are a pixel or less apart.) A drawing has its strokes as lines, so the same can be done to it exactly.

/// Pixels on a side of the bitmap.
const SIDE: usize = 32;
/// The widest that a digit may be in it.
const WIDTH: f32 = 20.0;
/// Pixels on a side of a block, and blocks on a side of the picture.
const BLOCK: usize = 4;
const BLOCKS: usize = SIDE / BLOCK;
/// Pixels of the picture.
pub const PIXELS: usize = BLOCKS * BLOCKS;
/// Dark pixels of the bitmap: the mean over the data is 312, that of a class 303 to 330.
const INK: usize = 312;
/// Half the thinnest and the thickest line, in pixels.
const RADII: [f32; 2] = [0.8, 5.0];
/// Halvings of the distance between them.
const HALVINGS: usize = 12;
/// A drawing is at least so many times as high as it is wide, or it is a dash and stays one.
const FLATTEST: f32 = 0.4;
/// It is stretched to the sides at most so many times as much as to top and bottom, or it is a bar and stays one.
const STRETCH: f32 = 2.0;
/// Pixels of the height of a line that count as the row at the top or at the bottom.
const ROW: f32 = 2.0;
/// The steepest shear, to the side for each pixel down: what would be steeper is no digit.
const SHEAR: f32 = 0.4;

/// A place on the paper: to the right, and down, in any unit.
pub type Point = [f32; 2];

/// The picture of a drawing, row by row, with values from 0 to 1; none where nothing was drawn.
///
/// ```
/// use osculant_web::drawing::picture;
/// let bar = [vec![[50.0, 10.0], [50.0, 90.0]]];
/// let picture = picture(&bar).expect("there is a stroke");
/// // The same wherever it is drawn, and however large.
/// assert_eq!(osculant_web::drawing::picture(&[vec![[3.0, 1.0], [3.0, 2.0]]]), Some(picture));
/// // Dark in the middle, from top to bottom; light at the sides.
/// assert!(picture.chunks(8).skip(1).take(6).all(|row| row[4] > 0.9 && row[0] == 0.0));
/// ```
#[must_use]
pub fn picture(strokes: &[Vec<Point>]) -> Option<[f32; PIXELS]> {
    strokes.iter().flatten().next()?;
    let draw = |radius: f32| bitmap(&upright(fitted(strokes, radius)), radius);
    let [mut thin, mut thick] = RADII;
    for _ in 0..HALVINGS {
        let radius = (thin + thick) / 2.0;
        if draw(radius).iter().filter(|dark| **dark).count() < INK {
            thin = radius;
        } else {
            thick = radius;
        }
    }
    let mut picture = [0.0; PIXELS];
    for (place, _) in draw(thin).iter().enumerate().filter(|(_, dark)| **dark) {
        let (x, y) = (place % SIDE, place / SIDE);
        picture[y / BLOCK * BLOCKS + x / BLOCK] += 1.0 / (BLOCK * BLOCK) as f32;
    }
    Some(picture)
}

/// The drawing scaled, and put into the middle of the bitmap, so that lines of this thickness fit.
fn fitted(strokes: &[Vec<Point>], radius: f32) -> Vec<Vec<Point>> {
    let ends = [0, 1].map(|axis| {
        let along = strokes.iter().flatten().map(|point| point[axis]);
        along.fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), x| {
            (low.min(x), high.max(x))
        })
    });
    let middle = ends.map(|(low, high)| (low + high) / 2.0);
    let [width, height] = ends.map(|(low, high)| high - low);
    let fit = |room: f32, extent: f32| (room - 2.0 * radius) / extent.max(f32::EPSILON);
    let down = fit(SIDE as f32, height.max(FLATTEST * width));
    let right = fit(WIDTH, width).min(STRETCH * down);
    map(strokes, |point| {
        [(0, right), (1, down)]
            .map(|(axis, scale)| SIDE as f32 / 2.0 + scale * (point[axis] - middle[axis]))
    })
}

/// Sheared around the middle until the leftmost places at the top and at the bottom are above each other.
fn upright(strokes: Vec<Vec<Point>>) -> Vec<Vec<Point>> {
    let heights = || strokes.iter().flatten().map(|point| point[1]);
    let top = heights().fold(f32::INFINITY, f32::min);
    let bottom = heights().fold(f32::NEG_INFINITY, f32::max);
    if bottom - top <= 2.0 * ROW {
        return strokes;
    }
    let over = leftmost(&strokes, [top, top + ROW]);
    let under = leftmost(&strokes, [bottom - ROW, bottom]);
    let shear = ((under - over) / (bottom - top - ROW)).clamp(-SHEAR, SHEAR);
    map(&strokes, |[x, y]| [x - shear * (y - SIDE as f32 / 2.0), y])
}

fn map(strokes: &[Vec<Point>], place: impl Fn(Point) -> Point) -> Vec<Vec<Point>> {
    let stroke = |points: &Vec<Point>| points.iter().map(|&point| place(point)).collect();
    strokes.iter().map(stroke).collect()
}

/// The smallest x of the lines between two heights.
fn leftmost(strokes: &[Vec<Point>], [above, below]: [f32; 2]) -> f32 {
    let mut smallest = f32::INFINITY;
    for stroke in strokes {
        for [from, to] in lines(stroke) {
            // A line is leftmost at one of its ends, or where it is cut; a level one is not cut.
            let cut = |height: f32| (height - from[1]) / (to[1] - from[1]);
            for part in [0.0, 1.0, cut(above), cut(below)] {
                let [x, y] = [0, 1].map(|axis| from[axis] + part * (to[axis] - from[axis]));
                let rounding = 1e-4 * (below - above);
                if (0.0..=1.0).contains(&part) && y >= above - rounding && y <= below + rounding {
                    smallest = smallest.min(x);
                }
            }
        }
    }
    smallest
}

/// The pixels within a distance of the lines.
fn bitmap(strokes: &[Vec<Point>], radius: f32) -> Vec<bool> {
    let mut bitmap = vec![false; SIDE * SIDE];
    for stroke in strokes {
        for line in lines(stroke) {
            for (place, dark) in bitmap.iter_mut().enumerate() {
                let pixel = [place % SIDE, place / SIDE].map(|at| at as f32 + 0.5);
                *dark |= distance(pixel, line) <= radius;
            }
        }
    }
    bitmap
}

/// Those between the points of a stroke; a tap of the pen is a line to itself.
fn lines(stroke: &[Point]) -> impl Iterator<Item = [Point; 2]> {
    let taps = stroke.first().map(|&point| [point, point]);
    stroke.windows(2).map(|ends| [ends[0], ends[1]]).chain(taps)
}

/// Of a point from a line between two.
fn distance(point: Point, [from, to]: [Point; 2]) -> f32 {
    let along = [to[0] - from[0], to[1] - from[1]];
    let off = [point[0] - from[0], point[1] - from[1]];
    let square = along[0] * along[0] + along[1] * along[1];
    let part = if square > 0.0 {
        ((off[0] * along[0] + off[1] * along[1]) / square).clamp(0.0, 1.0)
    } else {
        0.0
    };
    f32::hypot(off[0] - part * along[0], off[1] - part * along[1])
}
