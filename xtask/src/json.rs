//! Reads JSON, as much of it as benchmark programs write. Kept here because xtask has no dependencies.

/// A JSON value. Members of an object keep their order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads a whole text; an error names the byte where reading stopped.
    pub(crate) fn parse(text: &str) -> Result<Json, String> {
        let mut reader = Reader { text, at: 0 };
        let value = reader.value()?;
        reader.skip_space();
        if reader.at == text.len() {
            Ok(value)
        } else {
            Err(reader.unexpected("the end"))
        }
    }

    /// The value at the end of a path of member names.
    pub(crate) fn get(&self, path: &[&str]) -> Option<&Json> {
        path.iter().try_fold(self, |value, name| {
            let member = value.members().iter().find(|(key, _)| key == name)?;
            Some(&member.1)
        })
    }

    /// The number at the end of a path.
    pub(crate) fn number(&self, path: &[&str]) -> Option<f64> {
        match self.get(path) {
            Some(Json::Number(number)) => Some(*number),
            _ => None,
        }
    }

    /// The text at the end of a path.
    pub(crate) fn text(&self, path: &[&str]) -> Option<&str> {
        match self.get(path) {
            Some(Json::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Members of an object; none for anything else.
    pub(crate) fn members(&self) -> &[(String, Json)] {
        match self {
            Json::Object(members) => members,
            _ => &[],
        }
    }

    /// Items of a list; none for anything else.
    pub(crate) fn items(&self) -> &[Json] {
        match self {
            Json::List(items) => items,
            _ => &[],
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    /// Steps over `token`, and the space before it, if it comes next.
    fn take(&mut self, token: &str) -> bool {
        self.skip_space();
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn unexpected(&self, expected: &str) -> String {
        format!("not JSON: expected {expected} at byte {}", self.at)
    }

    fn value(&mut self) -> Result<Json, String> {
        if self.take("{") {
            self.members()
        } else if self.take("[") {
            self.items()
        } else if self.take("\"") {
            self.string().map(Json::Text)
        } else if self.take("null") {
            Ok(Json::Null)
        } else if self.take("true") {
            Ok(Json::Bool(true))
        } else if self.take("false") {
            Ok(Json::Bool(false))
        } else {
            self.number()
        }
    }

    fn number(&mut self) -> Result<Json, String> {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        match rest[..length].parse::<f64>() {
            Ok(number) => {
                self.at += length;
                Ok(Json::Number(number))
            }
            Err(_) => Err(self.unexpected("a value")),
        }
    }

    fn items(&mut self) -> Result<Json, String> {
        let mut items = Vec::new();
        if self.take("]") {
            return Ok(Json::List(items));
        }
        loop {
            items.push(self.value()?);
            if self.take("]") {
                return Ok(Json::List(items));
            }
            if !self.take(",") {
                return Err(self.unexpected("`,` or `]`"));
            }
        }
    }

    fn members(&mut self) -> Result<Json, String> {
        let mut members = Vec::new();
        if self.take("}") {
            return Ok(Json::Object(members));
        }
        loop {
            if !self.take("\"") {
                return Err(self.unexpected("a name"));
            }
            let name = self.string()?;
            if !self.take(":") {
                return Err(self.unexpected("`:`"));
            }
            members.push((name, self.value()?));
            if self.take("}") {
                return Ok(Json::Object(members));
            }
            if !self.take(",") {
                return Err(self.unexpected("`,` or `}`"));
            }
        }
    }

    /// The rest of a string whose opening quote has been taken.
    fn string(&mut self) -> Result<String, String> {
        let mut string = String::new();
        loop {
            let rest = self.rest();
            let plain = rest.find(['"', '\\']).unwrap_or(rest.len());
            string.push_str(&rest[..plain]);
            self.at += plain;
            let mut next = self.rest().chars();
            match (next.next(), next.next()) {
                (Some('"'), _) => {
                    self.at += 1;
                    return Ok(string);
                }
                (Some('\\'), Some('u')) => {
                    let digits = self.rest().get(2..6).unwrap_or_default();
                    let code = u32::from_str_radix(digits, 16)
                        .map_err(|_| self.unexpected("four hexadecimal digits"))?;
                    // Halves of surrogate pairs occur in no file that is read here.
                    string.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
                    self.at += 6;
                }
                (Some('\\'), Some(escaped)) => {
                    string.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        'b' => '\u{8}',
                        'f' => '\u{c}',
                        '"' | '\\' | '/' => escaped,
                        _ => return Err(self.unexpected("an escape")),
                    });
                    self.at += 2;
                }
                _ => return Err(self.unexpected("the end of a string")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Json;

    #[test]
    fn values_are_found_by_path() {
        let text = r#" {"a": {"b": [1, -2.5e3, "x\"\u00e9\n", true, null, {}, []]}, "c": 7} "#;
        let json = Json::parse(text).unwrap_or(Json::Null);
        assert_eq!(json.number(&["c"]), Some(7.0));
        assert_eq!(json.number(&["a"]), None);
        assert_eq!(json.get(&["c", "a"]), None);
        let items = json.get(&["a", "b"]).map(Json::items).unwrap_or_default();
        let expected = [
            Json::Number(1.0),
            Json::Number(-2500.0),
            Json::Text("x\"é\n".into()),
            Json::Bool(true),
            Json::Null,
            Json::Object(vec![]),
            Json::List(vec![]),
        ];
        assert_eq!(items, expected);
    }

    #[test]
    fn broken_texts_are_refused_with_the_place() {
        for (text, place) in [
            ("", 0),
            ("{\"a\": }", 6),
            ("[1, 2", 5),
            ("[1 2]", 3),
            ("{\"a\" 1}", 5),
            ("\"open", 5),
            ("\"\\x\"", 1),
            ("\"\\u12\"", 1),
            ("{} {}", 3),
            ("1.2.3", 0),
            ("NaN", 0),
        ] {
            let reason = Json::parse(text).err().unwrap_or_default();
            assert!(
                reason.ends_with(&format!("at byte {place}")),
                "{text}: {reason}"
            );
        }
    }
}
