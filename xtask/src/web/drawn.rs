//! Digits as a hand draws them, and the mouse that does it.

use super::devtools::Page;
use crate::json::Json;
use crate::shell::Outcome;
use std::io::Write;

/// Strokes of the digits from 0 to 9, drawn on a paper of 100 x 100. The tests of the bindings have the same.
const DRAWN: &str = include_str!("../../../web/tests/drawn-digits.json");
/// The side of that paper.
const SIDE: f64 = 100.0;

type Stroke = Vec<[f64; 2]>;

/// The strokes of each digit.
pub(super) fn digits() -> Outcome<Vec<Vec<Stroke>>> {
    let number = |json: &Json| json.number(&[]);
    let point = |json: &Json| match json.items() {
        [x, y] => Some([number(x)?, number(y)?]),
        _ => None,
    };
    let stroke = |json: &Json| json.items().iter().map(point).collect::<Option<Stroke>>();
    let digit = |json: &Json| json.items().iter().map(stroke).collect::<Option<Vec<_>>>();
    let json = Json::parse(DRAWN)?;
    let digits: Option<Vec<_>> = json.items().iter().map(digit).collect();
    digits.ok_or_else(|| "drawn-digits.json has something that is no point".into())
}

/// Draws strokes with the mouse, scaled to the square paper at a place of the page.
pub(super) fn draw<W: Write>(
    page: &mut Page<W>,
    strokes: &[Stroke],
    [left, top, side]: [f64; 3],
) -> Outcome {
    let mut mouse = |kind: &str, [x, y]: [f64; 2]| {
        let (x, y) = (left + x / SIDE * side, top + y / SIDE * side);
        let parameters = format!(
            r#"{{"type":"{kind}","x":{x},"y":{y},"button":"left","buttons":1,"clickCount":1}}"#
        );
        page.call("Input.dispatchMouseEvent", &parameters).map(drop)
    };
    for stroke in strokes {
        let (Some(first), Some(last)) = (stroke.first(), stroke.last()) else {
            continue;
        };
        mouse("mousePressed", *first)?;
        for point in stroke {
            mouse("mouseMoved", *point)?;
        }
        mouse("mouseReleased", *last)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_digit_has_strokes_on_the_paper() {
        let digits = super::digits().unwrap_or_default();
        assert_eq!(digits.len(), 10);
        for stroke in digits.iter().flatten() {
            assert!(stroke.len() > 2);
            assert!(stroke.iter().flatten().all(|x| (0.0..=100.0).contains(x)));
        }
    }
}
