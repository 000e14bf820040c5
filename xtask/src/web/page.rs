//! The page under test: what a person would press and read.

use super::devtools::Page;
use super::drawn;
use crate::json::Json;
use crate::shell::Outcome;
use std::io::Write;
use std::time::Duration;

/// Loading compiles the kernels.
const LOADING: Duration = Duration::from_secs(120);
const TRAINING: Duration = Duration::from_secs(900);
const ANSWERING: Duration = Duration::from_secs(30);

/// Loads the page, and waits until it can train.
pub(super) fn load<W: Write>(page: &mut Page<W>, address: &str) -> Outcome {
    page.call("Page.navigate", &format!(r#"{{"url":"{address}"}}"#))?;
    page.wait("loading", "globalThis.osculant?.state", LOADING)
}

/// Presses a button.
pub(super) fn press<W: Write>(page: &mut Page<W>, id: &str) -> Outcome {
    page.value(&format!("document.getElementById('{id}').click()"))
        .map(drop)
}

/// Waits until both methods have done their work, and returns the numbers of the run.
pub(super) fn trained<W: Write>(page: &mut Page<W>) -> Outcome<Json> {
    let over = "!osculant.state.training && (osculant.state.finished || !notice.hidden)";
    page.wait("training", over, TRAINING)?;
    page.value("osculant.state")
}

/// Draws a digit on an empty paper, and returns the digits that both methods see in it.
pub(super) fn recognised<W: Write>(
    page: &mut Page<W>,
    strokes: &[Vec<[f64; 2]>],
) -> Outcome<Vec<String>> {
    press(page, "clear")?;
    page.wait(
        "clearing",
        "!document.querySelector('#answers b')",
        ANSWERING,
    )?;
    let paper = page.value(
        "(({ left, top, width }) => [left, top, width])(document.getElementById('pad').getBoundingClientRect())",
    )?;
    let [left, top, side] = paper.items() else {
        return Err("the page has no paper".into());
    };
    let number = |json: &Json| json.number(&[]).unwrap_or_default();
    drawn::draw(page, strokes, [number(left), number(top), number(side)])?;
    page.wait("recognising", "osculant.answered", ANSWERING)?;
    let answers = page.value(
        "[...document.querySelectorAll('#answers b')].map((answer) => answer.textContent)",
    )?;
    let text = |json: &Json| json.text(&[]).unwrap_or_default().to_owned();
    Ok(answers.items().iter().map(text).collect())
}
