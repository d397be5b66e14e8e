//! The known name that a mistyped one most likely meant.

/// The closest of `known`, if it is close enough to be worth naming.
pub fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let name: String = name.chars().take(64).collect::<String>().to_lowercase();
    // Two letters in the wrong order are two edits; in a very short name they would be another name.
    let allowed = match name.chars().count() {
        0..=3 => 1,
        chars => (chars / 3).max(2),
    };
    let scored = known.into_iter().map(|k| (distance(&name, k), k));
    scored.filter(|(d, _)| *d <= allowed).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// Edits (insert, delete, replace) from one to the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_was_meant() {
        let known = ["model", "system", "metadata", "output_schema"];
        assert_eq!(nearest("modle", known), Some("model"));
        assert_eq!(nearest("System", known), Some("system"));
        assert_eq!(nearest("output_shema", known), Some("output_schema"));
        assert_eq!(nearest("budget", known), None);
        assert_eq!(nearest("", known), None);
    }
}
