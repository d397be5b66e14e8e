//! Arrows between crates, checked: they point from the rim to the words, along [`edges::EDGES`] and no other way.
//!
//! Three rules: a crate may use another only by an edge of the table; the pure crates may use third parties only from
//! [`edges::PURE_USES`]; and only the composition root names a concrete backend.

mod backends;
mod edges;

use crate::place;
use anyhow::{Context, Result, bail};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None`: a normal dependency.
    kind: Option<String>,
    /// Some for a crate of this repository.
    path: Option<String>,
}

pub fn run() -> Result<()> {
    println!("+ direction: edges between crates, uses of pure crates, names of backends");
    let text = place::output(place::cargo().args(["metadata", "--format-version", "1", "--no-deps"]))?;
    let metadata: Metadata = serde_json::from_str(&text).context("cargo metadata is not as expected")?;
    let mut faults = broken_edges(&metadata);
    faults.extend(impure_uses(&metadata));
    faults.extend(backends::named_elsewhere(&place::root())?);
    match faults.as_slice() {
        [] => Ok(()),
        faults => bail!("crates point the wrong way:\n  {}", faults.join("\n  ")),
    }
}

fn broken_edges(metadata: &Metadata) -> Vec<String> {
    let ours = |d: &&Dependency| d.path.is_some() && d.kind.as_deref() != Some("dev");
    let mut faults = Vec::new();
    for package in metadata.packages.iter().filter(|p| !edges::OUTSIDE.contains(&p.name.as_str())) {
        for used in package.dependencies.iter().filter(ours) {
            let allowed = edges::EDGES.iter().any(|(from, to, _)| *from == package.name && *to == used.name);
            if !allowed {
                let (from, to) = (&package.name, &used.name);
                faults.push(format!(
                    "`{from}` uses `{to}`; if that is right, it needs a row with its reason in edges.rs"
                ));
            }
        }
    }
    faults
}

fn impure_uses(metadata: &Metadata) -> Vec<String> {
    let mut faults = Vec::new();
    for package in metadata.packages.iter().filter(|p| edges::PURE.contains(&p.name.as_str())) {
        let foreign = package.dependencies.iter().filter(|d| d.path.is_none() && d.kind.as_deref() != Some("dev"));
        for used in foreign.filter(|d| !edges::PURE_USES.contains(&d.name.as_str())) {
            faults.push(format!(
                "`{}` uses `{}`; it opens nothing and reads no clock, so it may use only {}",
                package.name,
                used.name,
                edges::PURE_USES.join(", ")
            ));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(name: &str, used: &str, kind: Option<&str>, path: Option<&str>) -> Metadata {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        let dependency = Dependency { name: used.to_owned(), kind: owned(kind), path: owned(path) };
        Metadata { packages: vec![Package { name: name.to_owned(), dependencies: vec![dependency] }] }
    }

    #[test]
    fn a_broken_edge_is_found() {
        let faults = broken_edges(&metadata("loopd-domain", "loopd-server", None, Some("crates/server")));
        assert_eq!(faults.len(), 1);
        assert!(faults[0].contains("`loopd-domain` uses `loopd-server`"), "{faults:?}");
        assert_eq!(broken_edges(&metadata("loopd-store", "loopd-session", Some("build"), Some("x"))).len(), 1);
    }

    #[test]
    fn allowed_edges_and_those_of_tests_are_not() {
        assert!(broken_edges(&metadata("loopd-server", "loopd-session", None, Some("x"))).is_empty());
        assert!(broken_edges(&metadata("loopd-session", "loopd-server", Some("dev"), Some("x"))).is_empty());
        assert!(broken_edges(&metadata("loopd-server", "axum", None, None)).is_empty());
        assert!(broken_edges(&metadata("loopd-bench", "loopd-models", None, Some("x"))).is_empty());
        assert_eq!(broken_edges(&metadata("loopd-models", "loopd-bench", None, Some("x"))).len(), 1);
    }

    #[test]
    fn a_pure_crate_that_opens_something_is_found() {
        assert_eq!(impure_uses(&metadata("loopd-domain", "tokio", None, None)).len(), 1);
        assert!(impure_uses(&metadata("loopd-domain", "serde", None, None)).is_empty());
        assert!(impure_uses(&metadata("loopd-domain", "proptest", Some("dev"), None)).is_empty());
        assert!(impure_uses(&metadata("loopd-server", "tokio", None, None)).is_empty());
    }

    #[test]
    fn the_table_has_no_way_round() {
        fn reaches(from: &str, to: &str) -> bool {
            edges::EDGES.iter().any(|(a, b, _)| *a == from && (*b == to || reaches(b, to)))
        }
        for (from, _, reason) in edges::EDGES {
            assert!(!reaches(from, from), "`{from}` reaches itself");
            assert!(!reason.is_empty());
        }
    }
}
