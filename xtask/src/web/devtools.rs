//! The protocol by which Chromium is driven: JSON messages over two pipes, each ended by a zero byte.

use crate::json::Json;
use crate::shell::Outcome;
use std::io::{BufRead, BufReader, Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// How long the browser may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A page of a browser.
pub(super) struct Page<W> {
    to: W,
    from: Receiver<String>,
    /// Of the page among those of the browser; none before there is one.
    session: Option<String>,
    calls: u64,
    /// What went wrong in the page so far, as the browser's console shows it.
    pub(super) errors: Vec<String>,
}

impl<W: Write> Page<W> {
    /// A new, empty page of the browser at the other ends of two pipes.
    pub(super) fn new(to: W, from: impl Read + Send + 'static) -> Outcome<Self> {
        let (sender, receiver) = channel();
        std::thread::spawn(move || {
            for message in BufReader::new(from).split(0).map_while(Result::ok) {
                let text = String::from_utf8_lossy(&message).into_owned();
                if sender.send(text).is_err() {
                    break;
                }
            }
        });
        let mut page = Self {
            to,
            from: receiver,
            session: None,
            calls: 0,
            errors: Vec::new(),
        };
        let target = page.call("Target.createTarget", r#"{"url":"about:blank"}"#)?;
        let target = target.text(&["targetId"]).unwrap_or_default();
        let attach = format!(r#"{{"targetId":{},"flatten":true}}"#, quoted(target));
        let session = page.call("Target.attachToTarget", &attach)?;
        page.session = session.text(&["sessionId"]).map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            page.call(&format!("{domain}.enable"), "{}")?;
        }
        Ok(page)
    }

    /// Calls a method with parameters in JSON, and returns its result.
    pub(super) fn call(&mut self, method: &str, parameters: &str) -> Outcome<Json> {
        self.calls += 1;
        let id = self.calls;
        let session = match &self.session {
            Some(session) => format!(r#","sessionId":{}"#, quoted(session)),
            None => String::new(),
        };
        let message =
            format!(r#"{{"id":{id},"method":"{method}","params":{parameters}{session}}}"#);
        let sent = self.to.write_all(message.as_bytes());
        sent.and_then(|()| self.to.write_all(&[0]))
            .and_then(|()| self.to.flush())
            .map_err(|error| format!("the browser takes no more messages: {error}"))?;
        let end = Instant::now() + PATIENCE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let text = self.from.recv_timeout(left).map_err(|error| match error {
                RecvTimeoutError::Timeout => {
                    format!("the browser did not answer {method} within {PATIENCE:?}")
                }
                RecvTimeoutError::Disconnected => format!("the browser ended at {method}"),
            })?;
            let message = Json::parse(&text)?;
            if message.number(&["id"]) != Some(id as f64) {
                self.errors.extend(error_in(&message));
            } else if let Some(reason) = message.text(&["error", "message"]) {
                return Err(format!("the browser refuses {method}: {reason}"));
            } else {
                return Ok(message.get(&["result"]).cloned().unwrap_or(Json::Null));
            }
        }
    }

    /// The value of an expression in the page, a promise's when it is fulfilled.
    pub(super) fn value(&mut self, expression: &str) -> Outcome<Json> {
        let parameters = format!(
            r#"{{"expression":{},"returnByValue":true,"awaitPromise":true}}"#,
            quoted(expression)
        );
        let result = self.call("Runtime.evaluate", &parameters)?;
        match result.get(&["exceptionDetails"]) {
            Some(details) => Err(format!(
                "`{expression}` in the page: {}",
                described(details)
            )),
            None => Ok(result
                .get(&["result", "value"])
                .cloned()
                .unwrap_or(Json::Null)),
        }
    }

    /// Ends the browser.
    pub(super) fn end(&mut self) {
        // That is asked of the browser, not of the page, and the answer may be lost.
        self.session = None;
        self.call("Browser.close", "{}").ok();
    }

    /// Waits until an expression in the page is true.
    pub(super) fn wait(&mut self, what: &str, expression: &str, patience: Duration) -> Outcome {
        let end = Instant::now() + patience;
        while self.value(&format!("Boolean({expression})"))? != Json::Bool(true) {
            if Instant::now() > end {
                return Err(format!(
                    "{what} took more than {patience:?}; the console says: {:?}",
                    self.errors
                ));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// What a console shows in red: errors that a page writes, that it does not catch, and that the browser has with it.
fn error_in(message: &Json) -> Option<String> {
    let text = |path: &[&str]| message.text(path);
    match text(&["method"])? {
        "Runtime.exceptionThrown" => message.get(&["params", "exceptionDetails"]).map(described),
        "Runtime.consoleAPICalled"
            if matches!(text(&["params", "type"]), Some("error" | "assert")) =>
        {
            let arguments = message.get(&["params", "args"]).map(Json::items);
            let words = arguments.unwrap_or_default().iter().map(|argument| {
                let value = argument
                    .text(&["value"])
                    .or(argument.text(&["description"]));
                value.unwrap_or("?").to_owned()
            });
            Some(words.collect::<Vec<_>>().join(" "))
        }
        "Log.entryAdded" if text(&["params", "entry", "level"]) == Some("error") => {
            let entry =
                ["text", "url"].map(|part| text(&["params", "entry", part]).unwrap_or_default());
            Some(entry.join(" "))
        }
        "Inspector.targetCrashed" => Some("the page crashed".into()),
        _ => None,
    }
}

fn described(details: &Json) -> String {
    let description = details.text(&["exception", "description"]);
    let text = description.or(details.text(&["text"]));
    text.unwrap_or("an exception without words").to_owned()
}

/// A text as JSON.
pub(super) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => quoted.extend(['\\', character]),
            control if control < ' ' => quoted += &format!("\\u{:04x}", control as u32),
            other => quoted.push(other),
        }
    }
    quoted + "\""
}

#[cfg(test)]
mod tests {
    use super::{Page, error_in, quoted};
    use crate::json::Json;

    fn parse(text: &str) -> Json {
        Json::parse(text).unwrap_or(Json::Null)
    }

    #[test]
    fn quoted_texts_are_read_back() {
        let text = "a \"b\"\\\n\u{1}é";
        assert_eq!(Json::parse(&quoted(text)), Ok(Json::Text(text.into())));
    }

    #[test]
    fn errors_of_every_kind_are_seen_and_other_messages_are_none() {
        let error = |text: &str| error_in(&parse(text));
        let console = r#"{"method":"Runtime.consoleAPICalled","params":{"type":"error","args":[{"value":"a"},{"description":"b"}]}}"#;
        assert_eq!(error(console).as_deref(), Some("a b"));
        assert_eq!(error(&console.replace("error", "log")), None);
        let thrown = r#"{"method":"Runtime.exceptionThrown","params":{"exceptionDetails":{"text":"Uncaught","exception":{"description":"c"}}}}"#;
        assert_eq!(error(thrown).as_deref(), Some("c"));
        let log = r#"{"method":"Log.entryAdded","params":{"entry":{"level":"error","text":"404","url":"/x"}}}"#;
        assert_eq!(error(log).as_deref(), Some("404 /x"));
        assert_eq!(error(&log.replace("error", "warning")), None);
    }

    #[test]
    fn answers_find_their_calls_and_errors_in_between_are_kept() {
        let answers = [
            r#"{"id":1,"result":{"targetId":"t"}}"#,
            r#"{"id":2,"result":{"sessionId":"s"}}"#,
            r#"{"id":3,"result":{}}"#,
            r#"{"id":4,"result":{}}"#,
            r#"{"method":"Runtime.exceptionThrown","params":{"exceptionDetails":{"text":"oh"}}}"#,
            r#"{"id":5,"result":{}}"#,
            r#"{"id":6,"result":{"result":{"value":7}}}"#,
            r#"{"id":7,"error":{"message":"no such method"}}"#,
        ];
        let from = std::io::Cursor::new(answers.join("\0").into_bytes());
        let mut to = Vec::new();
        let page = Page::new(&mut to, from).map(|mut page| {
            assert_eq!(page.value("3 + 4"), Ok(Json::Number(7.0)));
            let refused = page.call("No.method", "{}").err().unwrap_or_default();
            assert_eq!(refused, "the browser refuses No.method: no such method");
            let ended = page.call("Page.enable", "{}").err().unwrap_or_default();
            assert_eq!(ended, "the browser ended at Page.enable");
            page.errors
        });
        assert_eq!(page, Ok(vec!["oh".to_owned()]));
        let sent = String::from_utf8_lossy(&to);
        assert!(sent.contains(r#""expression":"3 + 4""#) && sent.contains(r#""sessionId":"s""#));
    }
}
