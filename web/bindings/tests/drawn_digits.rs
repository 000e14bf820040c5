//! Digits that were drawn with a pen are recognised after some training.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used)]

use osculant::gpu::Gpu;
use osculant_web::drawing::{PIXELS, Point, picture};
use osculant_web::training::{Method, Training};

/// Strokes of the digits from 0 to 9, drawn on a paper of 100 x 100.
const DRAWN: &str = include_str!("../../tests/drawn-digits.json");
/// Work before they are asked for, in epochs.
const WORK: f64 = 10.0;

fn drawn() -> Vec<Vec<Vec<Point>>> {
    serde_json::from_str(DRAWN).unwrap()
}

/// Smaller, elsewhere, and leaning.
fn another_hand(strokes: &[Vec<Point>], lean: f32) -> Vec<Vec<Point>> {
    let moved = |[x, y]: &Point| [200.0 + 0.6 * (x + lean * (50.0 - y)), 30.0 + 0.7 * y];
    let stroke = |points: &Vec<Point>| points.iter().map(moved).collect();
    strokes.iter().map(stroke).collect()
}

#[test]
fn pictures_are_as_dark_as_those_of_the_data() {
    let digits = osculant::data::digits().unwrap();
    let mean = digits.features().iter().sum::<f32>() / digits.len() as f32;
    for (digit, strokes) in drawn().iter().enumerate() {
        let ink: f32 = picture(strokes).unwrap().iter().sum();
        // The standard deviation in the data is a tenth of the mean.
        assert!((ink / mean - 1.0).abs() < 0.1, "{digit}: {ink}, not {mean}");
    }
}

#[test]
fn nothing_drawn_is_no_picture_and_a_tap_is_one() {
    assert_eq!(picture(&[]), None);
    assert_eq!(picture(&[vec![]]), None);
    let tap = picture(&[vec![[7.0, 7.0]]]).unwrap();
    assert!(tap[27] == 1.0 && tap[0] == 0.0, "{tap:?}");
    assert_eq!(tap.len(), PIXELS);
}

#[test]
fn drawn_digits_are_recognised() {
    let gpu = Gpu::new().unwrap();
    for method in Method::ALL {
        let mut training = Training::new(&gpu, method, 0).unwrap();
        while training.work() < WORK {
            pollster::block_on(training.step()).unwrap();
        }
        let mut wrong = Vec::new();
        for lean in [-0.15, 0.0, 0.15] {
            for (digit, strokes) in drawn().iter().enumerate() {
                let picture = picture(&another_hand(strokes, lean)).unwrap();
                let found = pollster::block_on(training.probabilities(&picture)).unwrap();
                let best = (0..10)
                    .max_by(|&a, &b| found[a].total_cmp(&found[b]))
                    .unwrap();
                if best != digit {
                    wrong.push((lean, digit, best));
                }
            }
        }
        println!("{}: {wrong:?}", method.name());
        assert!(wrong.is_empty(), "{}: {wrong:?}", method.name());
    }
}
