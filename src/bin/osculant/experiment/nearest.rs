//! Which known name somebody meant.

/// The known name that is nearest to a wrong one, if it is near at all.
pub(crate) fn nearest<'a>(
    wrong: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let candidates = known.into_iter().map(|name| (distance(wrong, name), name));
    let (distance, name) = candidates.min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.len() / 4).then_some(name)
}

/// How many letters must be put in, taken out or replaced (Levenshtein 1965). Capitals, and hyphens in place of underscores, are no
/// difference.
fn distance(a: &str, b: &str) -> usize {
    let letters =
        |text: &str| -> Vec<char> { text.to_lowercase().replace('_', "-").chars().collect() };
    let (a, b) = (letters(a), letters(b));
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = corner + usize::from(x != y);
            corner = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_typing_error_is_near_and_another_word_is_not() {
        assert_eq!(distance("kitten", "sitting"), 3);
        let known = ["standardise", "target", "test", "hidden"];
        for (wrong, meant) in [
            ("standardize", Some("standardise")),
            ("taget", Some("target")),
            ("Hidden", Some("hidden")),
            ("tset", Some("test")),
            ("momentum", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, known), meant, "{wrong}");
        }
    }
}
