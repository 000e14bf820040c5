//! Options of optimizers in a file, by the names that `--set` has.

use std::ops::Range;

use clap::ValueEnum;
use toml::de::DeValue;

use super::document::{Document, Found, Section, as_text, unknown};
use crate::failure::{Failure, Outcome};
use crate::feed::Feed;
use crate::methods::Method;
use crate::optimizers::Setup;
use crate::problems::Problem;

/// The options that a file sets of one optimizer.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) method: Method,
    /// Where they begin.
    span: Range<usize>,
    /// Names and values, with the places of the values.
    settings: Vec<(String, Found<String>)>,
}

/// The optimizer of this name, or which one may be meant.
pub(crate) fn method(document: &Document, name: &Found<String>) -> Outcome<Method> {
    <Method as ValueEnum>::from_str(&name.value, false).map_err(|_| {
        let known: Vec<&str> = Method::value_variants()
            .iter()
            .map(|method| method.name())
            .collect();
        unknown(
            document,
            &name.span,
            &format!("there is no optimizer '{}'", name.value),
            &name.value,
            &known,
        )
    })
}

/// The tables `[optimizers.NAME]`, which `section` holds, checked one by one.
pub(crate) fn read(section: &Section<'_>) -> Outcome<Vec<Options>> {
    section
        .entries()
        .map(|(name, value, span)| {
            let document = section.document;
            let name = Found {
                value: name.to_owned(),
                span: span.clone(),
            };
            let method = method(document, &name)?;
            let DeValue::Table(table) = value.get_ref() else {
                let message = format!("{} in [optimizers] is no table", name.value);
                return Err(document.failure(&span, message).hint(format!(
                    "write [optimizers.{}], and its options below it",
                    name.value
                )));
            };
            let mut options = Options {
                method,
                span,
                settings: Vec::new(),
            };
            let setup = Setup::new(method, &Problem::DigitsMlp);
            for (key, value) in table {
                let (key, place) = (key.get_ref().to_string(), key.span());
                if !setup.has(&key) {
                    let known = setup.keys();
                    return Err(unknown(
                        document,
                        &place,
                        &format!("{} has no option '{key}'", name.value),
                        &key,
                        &known,
                    ));
                }
                let text = as_text(value.get_ref()).ok_or_else(|| {
                    document
                        .failure(
                            &value.span(),
                            format!(
                                "{key} of {} is neither a number nor a text, true or false",
                                name.value
                            ),
                        )
                        .hint(format!("for example {key} = {}", written(&setup, &key)))
                })?;
                options.settings.push((
                    key,
                    Found {
                        value: text,
                        span: value.span(),
                    },
                ));
            }
            options.check(document)?;
            Ok(options)
        })
        .collect()
}

/// The default of an option as it stands in a file.
fn written(setup: &Setup, key: &str) -> String {
    match setup.json().get(key) {
        Some(value) => value.to_string(),
        None => String::new(),
    }
}

impl Options {
    /// Gives an optimizer these options.
    pub(crate) fn apply(&self, setup: &mut Setup) -> Outcome {
        self.settings
            .iter()
            .try_for_each(|(key, found)| setup.set(key, &found.value))
    }

    /// Their names.
    pub(crate) fn keys(&self) -> impl Iterator<Item = String> {
        self.settings.iter().map(|(key, _)| key.clone())
    }

    /// Whether an optimizer can be made with them.
    fn check(&self, document: &Document) -> Outcome {
        let default = Setup::new(self.method, &Problem::DigitsMlp);
        self.try_with(document, &default, |setup| setup.build().map(drop))
    }

    /// Whether so many training rows can be dealt as they say.
    pub(crate) fn check_rows(&self, document: &Document, rows: usize) -> Outcome {
        let mut default = Setup::new(self.method, &Problem::DigitsMlp);
        default.set("batch", "all")?;
        self.try_with(document, &default, |setup| {
            Feed::new(setup, rows, 0).map(drop)
        })
    }

    /// Tries them together with the defaults of the others. A failure is where the one stands that is wrong even alone, if there is one.
    fn try_with(
        &self,
        document: &Document,
        default: &Setup,
        attempt: impl Fn(&Setup) -> Outcome,
    ) -> Outcome {
        let mut all = default.clone();
        self.apply(&mut all)?;
        let Err(together) = attempt(&all) else {
            return Ok(());
        };
        for (key, found) in &self.settings {
            let mut alone = default.clone();
            alone.set(key, &found.value)?;
            if let Err(failure) = attempt(&alone) {
                return Err(located(
                    document,
                    &found.span,
                    &failure,
                    &format!("for example {key} = {}", written(default, key)),
                ));
            }
        }
        Err(located(
            document,
            &self.span,
            &together,
            "these options do not fit together",
        ))
    }
}

fn located(document: &Document, span: &Range<usize>, failure: &Failure, hint: &str) -> Failure {
    document.failure(span, failure.message()).hint(hint)
}
