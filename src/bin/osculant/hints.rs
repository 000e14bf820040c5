//! What to type instead of options that cannot be used: every hint here works for the command and the data at hand.

use crate::failure::Failure;
use crate::optimizers::{Origin, Setup};
use crate::problems::Problem;

impl Setup {
    /// How the command line sets an option, where it can.
    fn setting(&self, key: &str, value: &str) -> Option<String> {
        match self.origin {
            Origin::Train => Some(format!("--set {key}={value}")),
            Origin::Compare => Some(format!("--set {}.{key}={value}", self.method.name())),
            Origin::Checkpoint | Origin::Fixed => None,
        }
    }

    /// An option whose value is not what is expected of it, with an example of one that is.
    pub(crate) fn bad(&self, key: &str, expected: &str) -> Failure {
        self.unusable(key, expected, &[self.example(key)])
    }

    /// A mini-batch that is not to be had of `rows` training rows.
    pub(crate) fn bad_batch(&self, rows: usize) -> Failure {
        let expected = format!("a number from 1 to {rows} or 'all'");
        self.unusable("batch", &expected, &["all", &rows.div_ceil(2).to_string()])
    }

    fn unusable(&self, key: &str, expected: &str, examples: &[&str]) -> Failure {
        let (name, text) = (self.method.name(), self.text(key).unwrap_or_default());
        let failure = Failure::new(format!(
            "option {key} of {name} is '{text}', which is not {expected}"
        ));
        let settings: Option<Vec<String>> = examples
            .iter()
            .map(|value| self.setting(key, value))
            .collect();
        failure.hint(match (settings, self.origin) {
            (Some(settings), _) => format!("for example {}", settings.join(", or ")),
            (None, Origin::Checkpoint) => {
                "a run is continued with its own options, on the data that it began with; --data FOLDER says where they are".to_owned()
            }
            (None, _) => {
                "options are set by `osculant train`, whose --checkpoint FILE can be given here".to_owned()
            }
        })
    }

    /// A text that should have been `key=value`.
    pub(crate) fn no_setting(&self, text: &str) -> Failure {
        let key = self.key_for(text);
        let form = match self.origin {
            Origin::Compare => "OPTIMIZER.KEY=VALUE",
            _ => "KEY=VALUE",
        };
        let failure = Failure::new(format!("'{text}' is not of the form {form}"));
        match self.setting(key, self.example(key)) {
            Some(setting) => failure.hint(format!("for example {setting}")),
            None => failure,
        }
    }

    /// A setting of `osculant compare` that does not say which optimizer is meant.
    pub(crate) fn unnamed(&self, text: &str) -> Failure {
        let (key, value) = text.split_once('=').unwrap_or((text, ""));
        let failure = Failure::new(format!("'{text}' does not say which optimizer is meant"));
        let (key, value) = if self.has(key) && !value.is_empty() {
            (key, value)
        } else {
            let key = self.key_for(key);
            (key, self.example(key))
        };
        match self.setting(key, value) {
            Some(setting) => failure.hint(format!("for example {setting}")),
            None => failure,
        }
    }

    /// What to try where a run diverges: a tenth of the step length, or ten times the damping; the default, where that is calmer.
    pub(crate) fn calmer(&self) -> Option<String> {
        let number = |text: &str| {
            text.parse()
                .ok()
                .filter(|x: &f64| x.is_finite() && *x > 0.0)
        };
        let of = |key: &str| {
            let value = number(self.text(key).ok()?)?;
            Some((value, number(self.example(key)).unwrap_or(value)))
        };
        let lengths = [
            "learning-rate",
            "step-length",
            "max-step-length",
            "first-step",
        ];
        let smaller = lengths.into_iter().find_map(|key| {
            let (value, default) = of(key)?;
            let setting = self.setting(key, &(value / 10.0).min(default).to_string())?;
            Some(format!("a smaller {}, {setting}", key.replace('-', " ")))
        });
        smaller.or_else(|| {
            let (value, default) = of("damping")?;
            let setting = self.setting("damping", &(value * 10.0).max(default).to_string())?;
            Some(format!("a larger damping, {setting}"))
        })
    }

    /// The option that a text names, or the first one.
    fn key_for(&self, text: &str) -> &'static str {
        let defaults = self.method.defaults(&Problem::DigitsMlp);
        let named = defaults.iter().find(|(key, _)| *key == text);
        named.or(defaults.first()).map_or("", |(key, _)| key)
    }

    fn example(&self, key: &str) -> &'static str {
        let defaults = self.method.defaults(&Problem::DigitsMlp);
        let found = defaults.iter().find(|(name, _)| *name == key);
        found.map_or("", |(_, value)| value)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use clap::ValueEnum;

    use super::*;
    use crate::failure::Outcome;
    use crate::feed::Feed;
    use crate::methods::Method;

    const ROWS: usize = 120;

    /// Everything that looks at options.
    fn try_all(setup: &Setup) -> Outcome {
        setup.build()?;
        Feed::new(setup, ROWS, 0).map(|_| ())
    }

    /// The settings after `--set` in a message.
    fn settings(message: &str) -> Vec<String> {
        let after = message.split("--set ").skip(1);
        after
            .filter_map(|text| text.split([',', ' ', '\n']).next())
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn every_hint_about_an_option_works() {
        for &method in Method::value_variants() {
            for problem in [&Problem::DigitsMlp, &Problem::MnistMlp] {
                let mut whole = Setup::new(method, problem).with_origin(Origin::Train);
                whole.set("batch", "all").unwrap();
                try_all(&whole).unwrap();
                for (key, _) in method.defaults(problem) {
                    for wrong in ["nonsense", "1000000", "-1", ""] {
                        let mut setup = whole.clone();
                        setup.set(key, wrong).unwrap();
                        let Err(failure) = try_all(&setup) else {
                            continue;
                        };
                        let message = failure.to_string();
                        // The library's own words about a range have no hint.
                        for setting in settings(&message) {
                            let mut setup = setup.clone();
                            setup.set_all([setting.as_str()]).unwrap();
                            try_all(&setup)
                                .unwrap_or_else(|error| panic!("{message}, and then {error}"));
                        }
                        assert!(
                            wrong != "nonsense" || message.contains("--set"),
                            "{message}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn hints_are_in_the_form_of_the_command() {
        let hint = |origin| {
            let setup = Setup::new(Method::NewtonCg, &Problem::MnistMlp).with_origin(origin);
            setup.bad_batch(ROWS).to_string()
        };
        assert!(hint(Origin::Train).ends_with("--set batch=all, or --set batch=60"));
        assert!(
            hint(Origin::Compare)
                .ends_with("--set newton-cg.batch=all, or --set newton-cg.batch=60")
        );
        for origin in [Origin::Checkpoint, Origin::Fixed] {
            assert!(!hint(origin).contains("--set"), "{}", hint(origin));
        }
    }

    #[test]
    fn a_run_that_diverges_gets_a_calmer_setting() {
        for &method in Method::value_variants() {
            let setup = Setup::new(method, &Problem::DigitsMlp).with_origin(Origin::Train);
            let hint = setup.calmer().unwrap();
            let mut calmer = setup.clone();
            calmer
                .set_all(settings(&hint).iter().map(String::as_str))
                .unwrap();
            assert_ne!(calmer, setup, "{hint}");
            calmer.build().unwrap();
        }
        let mut wild = Setup::new(Method::Sgd, &Problem::DigitsMlp).with_origin(Origin::Train);
        wild.set("learning-rate", "1e30").unwrap();
        assert!(wild.calmer().unwrap().ends_with("--set learning-rate=0.1"));
    }
}
