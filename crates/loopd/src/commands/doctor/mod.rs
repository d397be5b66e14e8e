//! `loopd doctor`: what works on this machine and what does not, tried rather than guessed, with the remedy.
//!
//! It needs no server, and holds the data directory only for a moment. When one of the checks is broken the exit code is 1.

mod directory;
mod machine;
mod models;
mod network;

use crate::args::{DoctorArgs, Place};
use crate::compose;
use crate::exit::Exit;
use crate::screen::{Ink, Screen};
use crate::settings::{Settings, process_env};
use anyhow::Result;
use loopd_domain::environment::Isolation;
use loopd_sandbox::port::{Check, CheckVerdict};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

/// Longer than rooms take to end.
const END_PATIENCE: Duration = Duration::from_secs(5);

/// Findings under one heading.
struct Section {
    title: &'static str,
    checks: Vec<Check>,
}

pub async fn run(place: &Place, args: &DoctorArgs) -> Result<Exit> {
    let settings = Settings::resolve(place, &process_env)?;
    let directory = directory::Trial::new(&settings.data);
    let sections = [
        Section { title: "machine", checks: machine::checks(&settings.data) },
        Section { title: "data directory", checks: directory.checks() },
        Section {
            title: "rooms",
            checks: as_wanted(rooms(&directory.rooms()).await, settings.config.microvm.is_some()),
        },
        Section { title: "models", checks: models::checks(&settings, &process_env) },
        Section { title: "network", checks: network::checks(&settings).await },
    ];
    drop(directory);
    match args.json {
        true => writeln!(std::io::stdout(), "{}", as_json(&sections))?,
        false => show(&sections, &mut Screen::stdout())?,
    }
    Ok(if worst(&sections) == CheckVerdict::Broken { Exit::Failure } else { Exit::Success })
}

/// On a runtime of its own: what it began in the background has ended when this returns, and the directory can be removed.
async fn rooms(data: &Path) -> Vec<Check> {
    let data = data.to_owned();
    let tried = tokio::task::spawn_blocking(move || -> Result<Vec<Check>> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        let checks = runtime.block_on(async {
            let sandbox = compose::trial_sandbox(&data)?;
            Ok(sandbox.probe().await)
        });
        runtime.shutdown_timeout(END_PATIENCE);
        checks
    });
    let fault = match tried.await {
        Ok(Ok(checks)) => return checks,
        Ok(Err(fault)) => fault.to_string(),
        Err(stopped) => stopped.to_string(),
    };
    vec![check("launcher", CheckVerdict::Broken, fault, "see docs/operations.md, Rooms")]
}

/// Rooms of a kind that nothing here asks for need not work: what they lack is a weakness of the machine, with its remedy.
fn as_wanted(mut checks: Vec<Check>, microvm: bool) -> Vec<Check> {
    let kind = format!("{}: ", Isolation::Microvm.as_str());
    for check in checks.iter_mut().filter(|check| !microvm && check.name.starts_with(&kind)) {
        if check.verdict == CheckVerdict::Broken {
            check.verdict = CheckVerdict::Degraded;
        }
    }
    checks
}

pub fn check(name: &str, verdict: CheckVerdict, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { name: name.to_owned(), verdict, detail: detail.into(), remedy: remedy.into() }
}

fn worst(sections: &[Section]) -> CheckVerdict {
    let all: Vec<CheckVerdict> = sections.iter().flat_map(|s| &s.checks).map(|c| c.verdict).collect();
    let has = |verdict| all.contains(&verdict);
    match () {
        () if has(CheckVerdict::Broken) => CheckVerdict::Broken,
        () if has(CheckVerdict::Degraded) => CheckVerdict::Degraded,
        () => CheckVerdict::Works,
    }
}

fn verdict_line(sections: &[Section]) -> String {
    let count = |verdict| sections.iter().flat_map(|s| &s.checks).filter(|c| c.verdict == verdict).count();
    let (broken, degraded) = (count(CheckVerdict::Broken), count(CheckVerdict::Degraded));
    let weaknesses = format!("{degraded} weakness{}", if degraded == 1 { "" } else { "es" });
    match (broken, degraded) {
        (0, 0) => "loopd works here".to_owned(),
        (0, _) => format!("loopd works here, with {weaknesses}"),
        (n, 0) => format!("loopd does not work here: {n} broken"),
        (n, _) => format!("loopd does not work here: {n} broken, {weaknesses}"),
    }
}

fn show(sections: &[Section], screen: &mut Screen) -> std::io::Result<()> {
    for section in sections {
        screen.line(Ink::Bold, section.title)?;
        for check in &section.checks {
            let (ink, mark) = match check.verdict {
                CheckVerdict::Works => (Ink::Green, "  ✓ "),
                CheckVerdict::Degraded => (Ink::Yellow, "  ! "),
                CheckVerdict::Broken => (Ink::Red, "  ✗ "),
            };
            screen.put(ink, mark)?;
            screen.line(Ink::Plain, &format!("{:<34} {}", check.name, check.detail))?;
            if !check.remedy.is_empty() {
                screen.line(Ink::Cyan, &format!("    → {}", check.remedy))?;
            }
        }
    }
    screen.line(Ink::Bold, &verdict_line(sections))?;
    screen.flush()
}

fn as_json(sections: &[Section]) -> Value {
    let checks = sections.iter().flat_map(|section| {
        section.checks.iter().map(|check| {
            json!({"section": section.title, "name": check.name, "verdict": word(check.verdict),
                   "detail": check.detail, "remedy": check.remedy})
        })
    });
    let checks: Vec<Value> = checks.collect();
    json!({"verdict": word(worst(sections)), "summary": verdict_line(sections), "checks": checks})
}

fn word(verdict: CheckVerdict) -> &'static str {
    match verdict {
        CheckVerdict::Works => "works",
        CheckVerdict::Degraded => "degraded",
        CheckVerdict::Broken => "broken",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sections(verdicts: &[CheckVerdict]) -> Vec<Section> {
        let checks = verdicts.iter().map(|v| check("a", *v, "seen", "do")).collect();
        vec![Section { title: "t", checks }]
    }

    #[test]
    fn machines_that_nobody_asks_for_need_not_work() {
        use CheckVerdict::*;
        let found =
            || ["namespaces: a whole room", "microvm: a whole room"].map(|name| check(name, Broken, "seen", "do"));
        let verdicts = |wanted| as_wanted(found().into(), wanted).into_iter().map(|c| c.verdict).collect::<Vec<_>>();
        assert_eq!(verdicts(false), [Broken, Degraded]);
        assert_eq!(verdicts(true), [Broken, Broken]);
        assert!(as_wanted(found().into(), false).iter().all(|check| check.remedy == "do"));
    }

    #[test]
    fn the_verdict_is_the_worst_of_all() {
        use CheckVerdict::*;
        let line = |verdicts: &[CheckVerdict]| verdict_line(&sections(verdicts));
        assert_eq!(line(&[Works]), "loopd works here");
        assert_eq!(line(&[Works, Degraded]), "loopd works here, with 1 weakness");
        assert_eq!(line(&[Broken, Degraded, Degraded]), "loopd does not work here: 1 broken, 2 weaknesses");
        assert_eq!(worst(&sections(&[Works, Broken, Degraded])), Broken);
        assert_eq!(as_json(&sections(&[Degraded]))["verdict"], "degraded");
    }
}
