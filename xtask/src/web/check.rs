//! The test of the page: in Chromium without a window it trains as a native program does, recognises what is drawn, and its console stays
//! empty.

use super::browser::{self, Browser};
use super::server::Server;
use super::{base64, devtools, drawn, page, site};
use crate::adapter;
use crate::json::Json;
use crate::shell::{self, Outcome};
use std::fs;
use std::io::Write;

/// The picture in the README.
const PICTURE: &str = "docs/pictures/web.png";
/// Size of the page in the picture, and pixels of the picture for each of the page.
const SIZE: [u32; 3] = [1180, 735, 2];
/// Native runs from seed 0 on, whose final losses have a spread.
const SEEDS: usize = 5;
/// Steps whose losses are compared, and how far apart they may be.
const COMPARED: usize = 20;
const TOLERANCE: f64 = 1e-3;
/// The digit in the picture.
const SHOWN: usize = 3;
/// Milliseconds for which training may hold the page up.
const LONGEST_TASK: f64 = 200.0;
/// Milliseconds from which on browsers call a task long, and tell of it.
const LONG_TASK: f64 = 50.0;
/// Collects how long the long tasks of the page are.
const WATCH_TASKS: &str = "globalThis.longTasks = []; new PerformanceObserver((list) => \
    longTasks.push(...list.getEntries().map((task) => task.duration))).observe({ type: 'longtask' })";
/// Takes WebGPU away before a page begins.
const WITHOUT_WEBGPU: &str = r#"{"source":"delete Navigator.prototype.gpu"}"#;

pub(super) fn run() -> Outcome {
    let program = browser::find()?;
    let folder = site::build()?;
    let server = Server::new(folder, 0)?;
    let address = format!("http://localhost:{}/", server.address.port());
    std::thread::spawn(move || server.run());

    println!("Training in {program} ...");
    let mut browser = Browser::start(&program)?;
    let page = &mut browser.page;
    let [width, height, ratio] = SIZE;
    page.call(
        "Emulation.setDeviceMetricsOverride",
        &format!(
            r#"{{"width":{width},"height":{height},"deviceScaleFactor":{ratio},"mobile":false}}"#
        ),
    )?;
    page::load(page, &address)?;
    let digits = drawn::digits()?;
    watch_tasks(page)?;
    page::press(page, "train")?;
    // The page answers while it trains: what is drawn is there before the end.
    let early = page::recognised(page, &digits[SHOWN])?;
    let training = page.value("osculant.state.training")? == Json::Bool(true);
    let state = page::trained(page)?;
    no_errors(&page.errors)?;
    if early.len() != 2 || !training {
        return Err("what was drawn while the page trained was not answered before the end".into());
    }
    let longest = page
        .value("Math.max(0, ...longTasks)")?
        .number(&[])
        .unwrap_or(f64::NAN);
    println!(
        "  training held the page up for {:.0} ms at most",
        longest.max(LONG_TASK)
    );
    if longest.is_nan() || longest > LONGEST_TASK {
        return Err(format!(
            "the page was held up for {longest:.0} ms; {LONGEST_TASK} are allowed"
        ));
    }
    recognise_all(page, &digits)?;
    page::recognised(page, &digits[SHOWN])?;
    take_picture(page)?;
    no_errors(&page.errors)?;
    errors_are_seen(page)?;
    says_what_is_missing(page, &address)?;
    drop(browser);

    compare(&state, &native(&state)?)
}

/// Draws every digit, and demands that both networks recognise it.
fn recognise_all<W: Write>(page: &mut devtools::Page<W>, digits: &[Vec<Vec<[f64; 2]>>]) -> Outcome {
    let mut wrong = Vec::new();
    for (digit, strokes) in digits.iter().enumerate() {
        let found = page::recognised(page, strokes)?;
        if found != [digit.to_string(), digit.to_string()] {
            wrong.push(format!("{digit} is taken for {}", found.join(" and ")));
        }
    }
    if wrong.is_empty() {
        println!(
            "  both networks recognise all {} drawn digits",
            digits.len()
        );
        return Ok(());
    }
    Err(format!("of the drawn digits {}", wrong.join(", ")))
}

/// Collects how long tasks of the page take, and sees that a planted one is noticed.
fn watch_tasks<W: Write>(page: &mut devtools::Page<W>) -> Outcome {
    page.value(WATCH_TASKS)?;
    page.value("setTimeout(() => { const end = performance.now() + 120; while (performance.now() < end); })")?;
    page.wait(
        "noticing a long task",
        "longTasks.length",
        std::time::Duration::from_secs(5),
    )?;
    page.value("longTasks = []").map(drop)
}

fn take_picture<W: Write>(page: &mut devtools::Page<W>) -> Outcome {
    let answer = page.call("Page.captureScreenshot", r#"{"format":"png"}"#)?;
    let png = answer.text(&["data"]).and_then(base64::decode);
    let png = png.ok_or("the browser sent no picture")?;
    let path = shell::root().join(PICTURE);
    fs::write(&path, png).map_err(|error| shell::about(&path, &error))?;
    println!("  {PICTURE}");
    Ok(())
}

fn no_errors(errors: &[String]) -> Outcome {
    match errors {
        [] => Ok(()),
        _ => Err(format!("errors in the console:\n  {}", errors.join("\n  "))),
    }
}

/// An empty console says something only if it would not be empty otherwise.
fn errors_are_seen<W: Write>(page: &mut devtools::Page<W>) -> Outcome {
    page.value("console.error('planted')")?;
    page.value("setTimeout(() => { throw new Error('planted') })")?;
    page.value("fetch('no-such-file').then(() => new Promise((done) => setTimeout(done, 200)))")?;
    let planted = std::mem::take(&mut page.errors);
    match planted.len() {
        3 => Ok(()),
        _ => Err(format!(
            "of three planted errors these are seen: {planted:?}"
        )),
    }
}

/// Without WebGPU the page says so in a sentence, and nothing breaks.
fn says_what_is_missing<W: Write>(page: &mut devtools::Page<W>, address: &str) -> Outcome {
    page.call("Page.addScriptToEvaluateOnNewDocument", WITHOUT_WEBGPU)?;
    page.call("Page.navigate", &format!(r#"{{"url":"{address}"}}"#))?;
    let said = "document.getElementById('notice')?.innerText.includes('WebGPU, which this browser does not offer')";
    page.wait(
        "the sentence about WebGPU",
        said,
        std::time::Duration::from_secs(10),
    )?;
    no_errors(&page.errors)
}

/// The same runs without a browser.
fn native(state: &Json) -> Outcome<Json> {
    adapter::ensure()?;
    let work = state
        .number(&["work"])
        .ok_or("the page does not say its work")?;
    println!("Training natively, {SEEDS} seeds of each method ...");
    let mut command = shell::cargo();
    command.args([
        "run",
        "--quiet",
        "--package",
        "osculant-web",
        "--bin",
        "native",
        "--",
    ]);
    command.args([work.to_string(), SEEDS.to_string()]);
    let output = shell::capture(shell::with_runtime_folder(&mut command)?)?;
    Json::parse(String::from_utf8_lossy(&output).trim())
}

/// Compares the runs of the page with the native ones.
fn compare(page: &Json, native: &Json) -> Outcome {
    println!(
        "  the native adapter: {}",
        native.text(&["adapter"]).unwrap_or("?")
    );
    let lanes = page.get(&["lanes"]).map(Json::items).unwrap_or_default();
    let runs = native.get(&["runs"]).map(Json::items).unwrap_or_default();
    if lanes.len() != 2 {
        return Err(format!(
            "the page trained by {} methods, not by 2",
            lanes.len()
        ));
    }
    for lane in lanes {
        let method = lane.text(&["key"]).unwrap_or_default();
        let of_method: Vec<&Json> = runs
            .iter()
            .filter(|run| run.text(&["method"]) == Some(method))
            .collect();
        println!(
            "  {method}: {}",
            agreement(lane, &of_method).map_err(|reason| format!("{method}: {reason}"))?
        );
    }
    Ok(())
}

/// How the run of a method in the page agrees with the native ones, of which the first has the same seed.
fn agreement(lane: &Json, runs: &[&Json]) -> Outcome<String> {
    let losses = |run: &Json| -> Vec<f64> {
        let items = run.get(&["losses"]).map(Json::items).unwrap_or_default();
        items.iter().filter_map(|loss| loss.number(&[])).collect()
    };
    let finals: Vec<f64> = runs
        .iter()
        .filter_map(|run| run.number(&["final"]))
        .collect();
    let (Some(same_seed), Some(last), true) = (
        runs.first(),
        lane.number(&["last", "trainLoss"]),
        finals.len() == SEEDS,
    ) else {
        return Err(format!(
            "there are {} native runs, not {SEEDS}, or the page has no final loss",
            finals.len()
        ));
    };
    let (ours, theirs) = (losses(lane), losses(same_seed));
    if ours.len().min(theirs.len()) < COMPARED {
        return Err(format!(
            "{} steps in the page and {} natively are too few",
            ours.len(),
            theirs.len()
        ));
    }
    let differences = ours
        .iter()
        .zip(&theirs)
        .take(COMPARED)
        .map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, f64::max);
    let spread = deviation(&finals);
    let milliseconds = 1e3 * lane.number(&["seconds"]).unwrap_or(f64::NAN) / ours.len() as f64;
    let found = format!(
        "{} steps of {milliseconds:.1} ms; the first {COMPARED} losses differ by {largest:.1e} at most; the final loss is {last:.5}, \
         natively {:.5} from the same seed, with a standard deviation of {spread:.5} over {SEEDS}",
        ours.len(),
        finals[0]
    );
    // Not a number is a failure too.
    let agrees = largest <= TOLERANCE && (last - finals[0]).abs() <= spread;
    if agrees { Ok(found) } else { Err(found) }
}

/// The standard deviation of a sample.
fn deviation(values: &[f64]) -> f64 {
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (squares / (count - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::{SEEDS, compare};
    use crate::json::Json;

    /// Page and native runs, where losses and final loss of the page are off by so much.
    fn found(off: f64, final_off: f64) -> Result<(), String> {
        let losses = |off: f64| {
            (0..20)
                .map(|step| format!("{}", 2.0 - f64::from(step) / 20.0 + off))
                .collect::<Vec<_>>()
                .join(",")
        };
        let lane = |key: &str| {
            let last = 0.1 + final_off;
            format!(
                r#"{{"key":"{key}","seconds":2,"losses":[{}],"last":{{"trainLoss":{last}}}}}"#,
                losses(off)
            )
        };
        let run = |method: &str, seed: usize| {
            let last = 0.1 + 0.01 * seed as f64;
            format!(
                r#"{{"method":"{method}","losses":[{}],"final":{last}}}"#,
                losses(0.0)
            )
        };
        let page = format!(r#"{{"lanes":[{},{}]}}"#, lane("adam"), lane("newton-cg"));
        let runs: Vec<String> = ["adam", "newton-cg"]
            .into_iter()
            .flat_map(|method| (0..SEEDS).map(move |seed| run(method, seed)))
            .collect();
        let native = format!(r#"{{"adapter":"a","runs":[{}]}}"#, runs.join(","));
        compare(&Json::parse(&page)?, &Json::parse(&native)?)
    }

    #[test]
    fn runs_agree_within_the_tolerance_and_the_spread() {
        assert_eq!(found(0.0009, 0.015), Ok(()));
        assert!(found(0.0011, 0.0).is_err_and(|reason| reason.contains("1.1e-3")));
        assert!(found(0.0, 0.016).is_err());
        assert!(found(f64::NAN, 0.0).is_err());
    }
}
