//! Ratios of what three programs measured, and the Markdown of them. Nothing here runs a program.

use crate::json::Json;
use crate::shell::Outcome;
use std::fmt::Write;

const BEGIN: &str = "<!-- peers -->";
const END: &str = "<!-- /peers -->";

/// Relative difference of two losses up to which both are taken for the same problem: five digits.
const SAME_LOSS: f64 = 1e-5;

/// What the three programs printed in one round.
pub(crate) struct Round {
    pub(crate) ours: Json,
    pub(crate) torch: Json,
    pub(crate) burn: Json,
}

/// Times of a network: our key, PyTorch's, burn's, and what the reader sees.
const TIMES: [(&str, &str, Option<&str>, Option<&str>); 6] = [
    (
        "gradient",
        "gradient_ms",
        Some("gradient_ms"),
        Some("gradient_ms"),
    ),
    ("Hessian product", "hvp_ms", Some("hvp_ms"), None),
    (
        "Hessian product, BackPACK",
        "hvp_ms",
        Some("backpack_hvp_ms"),
        None,
    ),
    ("Gauss-Newton product", "ggn_ms", Some("ggn_ms"), None),
    (
        "Gauss-Newton product, BackPACK",
        "ggn_ms",
        Some("backpack_ggn_ms"),
        None,
    ),
    (
        "32 Gauss-Newton products",
        "ggn_block_32_ms",
        Some("ggn_block_32_ms"),
        None,
    ),
];

/// The whole section, markers included.
///
/// An error where the programs did not do the same: other losses, or another adapter for burn.
pub(crate) fn section(command: &str, rounds: &[Round]) -> Outcome<String> {
    let first = rounds.first().ok_or("there is no round")?;
    for round in rounds {
        check_losses(round)?;
        check_adapter(round)?;
    }
    let mut text = format!("{BEGIN}\n");
    text += "<!-- `cargo xtask peers` replaces everything down to the closing marker. -->\n\n";
    text += &format!(
        "Made by `{command}`: {} round{}, each running ours, PyTorch and burn one after another. Times and rates are medians over the rounds of each \
         round's median. A ratio is taken within each round: the median over the rounds, in brackets the least and the greatest. All three had the \
         same losses to five digits. `benches/peers/README.md` says what each figure includes.\n\n",
        rounds.len(),
        if rounds.len() == 1 { "" } else { "s" }
    );
    text += "| program | environment |\n|---|---|\n";
    for (name, json) in [
        ("osculant", &first.ours),
        ("PyTorch", &first.torch),
        ("burn", &first.burn),
    ] {
        text += &format!("| {name} | {} |\n", environment(json));
    }
    text += "\nMilliseconds; a ratio below 1 means that ours is faster.\n\n";
    text += &heading("network | figure");
    for (network, _) in first
        .torch
        .get(&["problems"])
        .map(Json::members)
        .unwrap_or_default()
    {
        for (label, ours, torch, burn) in TIMES {
            let values = |key: &str, program: fn(&Round) -> &Json| {
                over(rounds, |round| {
                    program(round).number(&["problems", network, key])
                })
            };
            let row = Row {
                ours: values(ours, |round| &round.ours),
                torch: torch.and_then(|key| values(key, |round| &round.torch)),
                burn: burn.and_then(|key| values(key, |round| &round.burn)),
            };
            text += &format!("| {network} | {label} | {}\n", row.cells());
        }
    }
    text += "\nRates; a ratio above 1 means that ours is faster.\n\n";
    text += &heading("operation | unit");
    for product in first
        .torch
        .get(&["gemm"])
        .map(Json::items)
        .unwrap_or_default()
    {
        let row = Row {
            ours: over(rounds, |round| gflops(&round.ours, product)),
            torch: over(rounds, |round| gflops(&round.torch, product)),
            burn: over(rounds, |round| gflops(&round.burn, product)),
        };
        let size = product.number(&["m"]).unwrap_or_default();
        let transpose = product.text(&["transpose"]).unwrap_or_default();
        text += &format!(
            "| matrix product {size} {transpose} | GFLOP/s | {}\n",
            row.cells()
        );
    }
    let axpy = |program: fn(&Round) -> &Json| {
        over(rounds, |round| {
            program(round).number(&["vector", "axpy_gbps"])
        })
    };
    let row = Row {
        ours: axpy(|round| &round.ours),
        torch: axpy(|round| &round.torch),
        burn: None,
    };
    text += &format!("| `y += a x` | GB/s | {}\n", row.cells());
    text += &format!("{END}\n");
    Ok(text)
}

/// Puts a section in the place of the one between the markers of a page.
pub(crate) fn replace(page: &str, section: &str) -> Outcome<String> {
    let missing = || {
        format!("the lines `{BEGIN}` and `{END}` are missing; put them where the section belongs")
    };
    let (before, rest) = page.split_once(BEGIN).ok_or_else(missing)?;
    let (_, after) = rest.split_once(END).ok_or_else(missing)?;
    Ok(format!("{before}{}{after}", section.trim_end()))
}

/// Refuses programs that did not solve the same problem.
fn check_losses(round: &Round) -> Outcome {
    let problems = |json: &Json| json.get(&["problems"]).cloned().unwrap_or(Json::Null);
    let torch = problems(&round.torch);
    for (name, program) in [("osculant", &round.ours), ("burn", &round.burn)] {
        for (network, _) in problems(program).members() {
            let Some(expected) = torch.number(&[network, "loss"]) else {
                continue;
            };
            let Some(loss) = program.number(&["problems", network, "loss"]) else {
                return Err(format!(
                    "{name} gives no `loss` for {network}, so nothing shows that it has the same problem"
                ));
            };
            let difference = (loss - expected).abs();
            if difference.is_nan() || difference > SAME_LOSS * expected.abs() {
                return Err(format!(
                    "{network}: {name} has the loss {loss}, PyTorch {expected}: not the same problem"
                ));
            }
        }
    }
    Ok(())
}

/// Refuses ratios of two adapters.
fn check_adapter(round: &Round) -> Outcome {
    let theirs = round
        .burn
        .text(&["environment", "adapter"])
        .unwrap_or_default();
    let ours = environment(&round.ours);
    if theirs.is_empty() || !ours.contains(theirs) {
        return Err(format!(
            "burn ran on the adapter `{theirs}`, osculant on another one ({ours}).\n\
             Choose burn's with --burn-device cpu, discrete-gpu, integrated-gpu or virtual-gpu, and ours with OSCULANT_ADAPTER."
        ));
    }
    Ok(())
}

/// One line of a program's environment: its simple members, those of nested objects that name things included.
fn environment(json: &Json) -> String {
    let mut words = Vec::new();
    collect(
        json.get(&["environment"]).unwrap_or(&Json::Null),
        &mut words,
    );
    words.join(", ")
}

fn collect(object: &Json, words: &mut Vec<String>) {
    for (name, value) in object.members() {
        match value {
            // Limits of a device are dozens of numbers.
            Json::Object(_) if name != "limits" => collect(value, words),
            Json::Text(text) => words.push(format!("{name} {text}")),
            Json::Number(number) => words.push(format!("{name} {number}")),
            Json::Bool(true) => words.push(name.clone()),
            Json::Bool(false) => words.push(format!("no {name}")),
            _ => {}
        }
    }
}

/// The rate that a program reports for a matrix product of the same shape: its first row, which is the kernel that it chooses itself.
fn gflops(program: &Json, product: &Json) -> Option<f64> {
    let same = |row: &&Json| {
        ["m", "n", "k", "transpose"]
            .iter()
            .all(|key| row.get(&[key]) == product.get(&[key]))
    };
    let rows = program.get(&["gemm"])?.items();
    rows.iter().find(same)?.number(&["gflops"])
}

/// A figure in every round, or none if a round lacks it.
fn over(rounds: &[Round], figure: impl Fn(&Round) -> Option<f64>) -> Option<Vec<f64>> {
    rounds
        .iter()
        .map(|round| figure(round).filter(|value| value.is_finite() && *value > 0.0))
        .collect()
}

/// A figure of the three programs, in every round.
struct Row {
    ours: Option<Vec<f64>>,
    torch: Option<Vec<f64>>,
    burn: Option<Vec<f64>>,
}

impl Row {
    fn cells(&self) -> String {
        let mut cells = format!("{} |", shown(self.ours.as_deref()));
        for theirs in [&self.torch, &self.burn] {
            let ratio = match (&self.ours, theirs) {
                (Some(ours), Some(theirs)) => ratio(ours, theirs),
                _ => "-".into(),
            };
            let _ = write!(cells, " {} | {ratio} |", shown(theirs.as_deref()));
        }
        cells
    }
}

fn heading(columns: &str) -> String {
    format!(
        "| {columns} | osculant | PyTorch | ours / PyTorch | burn | ours / burn |\n|---|---|---|---|---|---|---|\n"
    )
}

fn shown(values: Option<&[f64]>) -> String {
    values.and_then(median).map_or_else(|| "-".into(), digits)
}

/// Median, least and greatest of the ratios within each round.
fn ratio(ours: &[f64], theirs: &[f64]) -> String {
    let mut ratios: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    ratios.sort_by(f64::total_cmp);
    match (median(&ratios), ratios.as_slice()) {
        (Some(median), [least, .., greatest]) => format!(
            "{} [{} to {}]",
            digits(median),
            digits(*least),
            digits(*greatest)
        ),
        (Some(median), _) => digits(median),
        _ => "-".into(),
    }
}

/// The middle value; the mean of the two middle ones of an even number.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[middle - 1] + upper) / 2.0)
}

/// A positive number with three significant digits, or all of its whole part.
fn digits(value: f64) -> String {
    let decimals = (2 - value.log10().floor() as i32).clamp(0, 6);
    format!("{value:.*}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::{Round, digits, median, ratio, replace, section};
    use crate::json::Json;
    use crate::shell::Outcome;

    const OURS: &str = r#"{
        "environment": {"adapter": {"name": "soft", "driver": "9.1"}, "limits": {"buffers": 8}, "osculant": "0.1.0"},
        "gemm": [
            {"m": 512, "n": 512, "k": 512, "transpose": "NT", "family": "tile", "gflops": 5.0},
            {"m": 512, "n": 512, "k": 512, "transpose": "NN", "family": "tile", "gflops": 30.0},
            {"m": 512, "n": 512, "k": 512, "transpose": "NN", "family": "other", "gflops": 99.0}
        ],
        "vector": {"axpy_gbps": 4.0},
        "problems": {"net": {"loss": 2.000001, "gradient_ms": GRADIENT, "hvp_ms": 6.0, "ggn_ms": 3.0}}
    }"#;
    const TORCH: &str = r#"{
        "environment": {"cpu": "Some CPU", "threads": 2, "torch": "2.15.0", "quick": false},
        "gemm": [{"m": 512, "n": 512, "k": 512, "transpose": "NN", "gflops": 60.0}],
        "vector": {"axpy_gbps": 8.0},
        "problems": {"net": {
            "loss": 2.0, "gradient_ms": 2.0, "hvp_ms": 12.0, "ggn_ms": 6.0, "ggn_block_32_ms": 40.0,
            "backpack_hvp_ms": 3.0, "backpack_ggn_ms": 2.0
        }}
    }"#;
    const BURN: &str = r#"{
        "environment": {"adapter": "soft", "fusion": false, "autotune": true},
        "gemm": [{"m": 512, "n": 512, "k": 512, "transpose": "NN", "gflops": 10.0}],
        "problems": {"net": {"loss": 1.999999, "gradient_ms": 16.0, "forward_ms": 5.0}}
    }"#;

    fn round(ours: &str, torch: &str, burn: &str) -> Outcome<Round> {
        Ok(Round {
            ours: Json::parse(ours)?,
            torch: Json::parse(torch)?,
            burn: Json::parse(burn)?,
        })
    }

    fn rounds(gradients: &[&str]) -> Outcome<Vec<Round>> {
        gradients
            .iter()
            .map(|gradient| round(&OURS.replace("GRADIENT", gradient), TORCH, BURN))
            .collect()
    }

    #[test]
    fn figures_become_rows_with_ratios_of_rounds() -> Outcome {
        let text = section("cargo xtask peers", &rounds(&["4.0", "8.0", "5.0"])?)?;
        for line in [
            "| osculant | name soft, driver 9.1, osculant 0.1.0 |",
            "| PyTorch | cpu Some CPU, threads 2, torch 2.15.0, no quick |",
            "| burn | adapter soft, no fusion, autotune |",
            "| net | gradient | 5.00 | 2.00 | 2.50 [2.00 to 4.00] | 16.0 | 0.312 [0.250 to 0.500] |",
            "| net | Hessian product | 6.00 | 12.0 | 0.500 [0.500 to 0.500] | - | - |",
            "| net | Hessian product, BackPACK | 6.00 | 3.00 | 2.00 [2.00 to 2.00] | - | - |",
            "| net | 32 Gauss-Newton products | - | 40.0 | - | - | - |",
            "| matrix product 512 NN | GFLOP/s | 30.0 | 60.0 | 0.500 [0.500 to 0.500] | 10.0 | 3.00 [3.00 to 3.00] |",
            "| `y += a x` | GB/s | 4.00 | 8.00 | 0.500 [0.500 to 0.500] | - | - |",
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no `{line}` in\n{text}"
            );
        }
        assert!(!text.contains("buffers"), "{text}");
        assert!(text.contains("3 rounds"), "{text}");
        Ok(())
    }

    #[test]
    fn different_problems_are_refused() -> Outcome {
        let ours = OURS.replace("GRADIENT", "4.0");
        for (ours, burn, word) in [
            (
                ours.replace("2.000001", "2.00003"),
                BURN.to_string(),
                "osculant has the loss",
            ),
            (
                ours.replace("\"loss\"", "\"other\""),
                BURN.to_string(),
                "osculant gives no `loss`",
            ),
            (
                ours.clone(),
                BURN.replace("1.999999", "1.9999"),
                "burn has the loss",
            ),
            (
                ours.clone(),
                BURN.replace("\"soft\"", "\"hard\""),
                "another one",
            ),
            (
                ours.clone(),
                BURN.replace("\"adapter\"", "\"none\""),
                "another one",
            ),
        ] {
            let rounds = [round(&ours, TORCH, &burn)?];
            let reason = section("command", &rounds).err().unwrap_or_default();
            assert!(reason.contains(word), "expected `{word}`: {reason}");
        }
        assert!(section("command", &[]).is_err());
        Ok(())
    }

    #[test]
    fn a_figure_that_a_round_lacks_is_not_shown() -> Outcome {
        let mut rounds = rounds(&["4.0", "4.0"])?;
        rounds[1].burn = Json::parse(&BURN.replace("gradient_ms", "absent"))?;
        let text = section("command", &rounds)?;
        let row = "| net | gradient | 4.00 | 2.00 | 2.00 [2.00 to 2.00] | - | - |";
        assert!(text.contains(row), "{text}");
        Ok(())
    }

    #[test]
    fn only_the_section_of_a_page_is_replaced() -> Outcome {
        let section = "<!-- peers -->\nnew\n<!-- /peers -->\n";
        let page = "# Title\n\n<!-- peers -->\nold\n<!-- /peers -->\n\nmore\n";
        let replaced = replace(page, section)?;
        assert_eq!(
            replaced,
            "# Title\n\n<!-- peers -->\nnew\n<!-- /peers -->\n\nmore\n"
        );
        assert_eq!(replace(&replaced, section)?, replaced);
        for page in ["", "<!-- peers -->", "<!-- /peers -->\n<!-- peers -->"] {
            assert!(replace(page, section).is_err(), "{page}");
        }
        Ok(())
    }

    #[test]
    fn medians_and_digits() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median(&[]), None);
        assert_eq!(ratio(&[1.0], &[4.0]), "0.250");
        for (value, text) in [
            (1527.4, "1527"),
            (100.0, "100"),
            (45.64, "45.6"),
            (9.999, "10.00"),
            (1.0, "1.00"),
            (0.5, "0.500"),
            (0.001_234, "0.00123"),
        ] {
            assert_eq!(digits(value), text);
        }
    }
}
