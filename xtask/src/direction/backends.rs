//! Who names a concrete backend? Its own home, the composition root, and tests.

use anyhow::{Context, Result};
use std::fs;
use std::path::Path;

/// A backend's module, and where it is at home.
const BACKENDS: [(&str, &str); 4] = [
    ("sqlite", "crates/store/"),
    ("postgres", "crates/store/"),
    ("namespaces", "crates/sandbox/"),
    ("microvm", "crates/sandbox/"),
];

/// The executable: the only other place.
const COMPOSITION_ROOT: &str = "crates/loopd/src/compose.rs";

/// Lines of `crates/*/src` that name a backend and should not.
pub fn named_elsewhere(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    visit(root, &root.join("crates"), &mut faults)?;
    faults.sort();
    Ok(faults)
}

fn visit(root: &Path, directory: &Path, faults: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("`{}`", directory.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() {
            visit(root, &path, faults)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            let relative = path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned();
            let text = fs::read_to_string(&path).with_context(|| format!("`{relative}`"))?;
            faults.extend(in_file(&relative, &text));
        }
    }
    Ok(())
}

fn in_file(path: &str, text: &str) -> Vec<String> {
    if path == COMPOSITION_ROOT || is_test(path) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    for (number, line) in text.lines().take_while(|line| line.trim() != "#[cfg(test)]").enumerate() {
        let code = line.split("//").next().unwrap_or("");
        for (backend, _) in BACKENDS.iter().filter(|(backend, home)| !path.starts_with(home) && names(code, backend)) {
            faults.push(format!("{path}:{}: names `{backend}`; only {COMPOSITION_ROOT} may", number + 1));
        }
    }
    faults
}

fn is_test(path: &str) -> bool {
    let file = path.rsplit('/').next().unwrap_or(path);
    path.contains("/tests/")
        || path.contains("/testing/")
        || path.contains("/benches/")
        || file == "tests.rs"
        || file == "testing.rs"
}

/// Does the code use `backend` as a module, as in `store::sqlite::SqliteStore` or `use store::sqlite;`?
fn names(code: &str, backend: &str) -> bool {
    let part_of_a_name = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(backend).any(|(at, _)| {
        let (before, after) = (&code[..at], &code[at + backend.len()..]);
        let whole = !before.ends_with(part_of_a_name) && !after.starts_with(part_of_a_name);
        whole && (before.ends_with("::") || after.starts_with("::"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_named_in_a_room_is_found() {
        let text = "use loopd_store::Store;\nuse loopd_store::sqlite::SqliteStore;\n";
        let faults = in_file("crates/session/src/service.rs", text);
        assert_eq!(faults.len(), 1);
        assert!(faults[0].starts_with("crates/session/src/service.rs:2: names `sqlite`"), "{faults:?}");
        assert_eq!(in_file("crates/server/src/lib.rs", "loopd_sandbox::namespaces::Room::new()").len(), 1);
    }

    #[test]
    fn home_root_tests_and_words_are_not() {
        let text = "use loopd_store::sqlite::SqliteStore;";
        for path in
            ["crates/store/src/lib.rs", COMPOSITION_ROOT, "crates/server/src/testing.rs", "crates/session/tests/a.rs"]
        {
            assert!(in_file(path, text).is_empty(), "{path}");
        }
        let words = "use rusqlite::Connection;\n// see sqlite::Store\nlet kind = \"namespaces\";\n";
        assert!(in_file("crates/session/src/a.rs", words).is_empty());
        let tested = format!("fn a() {{}}\n#[cfg(test)]\nmod tests {{ {text} }}");
        assert!(in_file("crates/session/src/a.rs", &tested).is_empty());
    }

    #[test]
    fn this_repository_is_in_order() {
        assert_eq!(named_elsewhere(&crate::place::root()).expect("readable"), Vec::<String>::new());
    }
}
