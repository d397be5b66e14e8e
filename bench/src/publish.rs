//! Writes a report into docs/benchmarks.md: the text between the two marks of its section is replaced.

use anyhow::{Context, Result};
use std::path::Path;

pub fn publish(file: &Path, name: &str, markdown: &str) -> Result<()> {
    let text = std::fs::read_to_string(file).with_context(|| format!("`{}`", file.display()))?;
    let renewed = replace(&text, name, markdown)
        .with_context(|| format!("`{}` has no marks `begin {name}` and `end {name}`", file.display()))?;
    Ok(std::fs::write(file, renewed)?)
}

fn replace(text: &str, name: &str, markdown: &str) -> Option<String> {
    let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
    let (before, rest) = text.split_once(&begin)?;
    let (_, after) = rest.split_once(&end)?;
    Some(format!("{before}{begin}\n\n{markdown}\n\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_section_changes() {
        let text = "head\n<!-- begin a -->\nold\n<!-- end a -->\nbetween\n<!-- begin b -->\nkept\n<!-- end b -->\n";
        let wanted = text.replace("\nold\n", "\n\nnew\n\n");
        assert_eq!(replace(text, "a", "new").unwrap(), wanted);
        assert_eq!(replace(&wanted, "a", "new").unwrap(), wanted);
        assert!(replace(text, "c", "new").is_none());
    }

    #[test]
    fn the_page_has_a_section_for_every_benchmark() {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks.md");
        let text = std::fs::read_to_string(page).unwrap();
        for name in ["step", "many", "start", "room", "rooms", "recover", "rest", "barrier", "egress", "build"] {
            assert!(replace(&text, name, "").is_some(), "{name}");
        }
    }
}
