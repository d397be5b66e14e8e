//! What a run came to: points by kind, outcomes by class, times to recover, and every fault with its evidence.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write;

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub points: BTreeMap<String, Point>,
    /// By class, then by outcome.
    pub outcomes: BTreeMap<String, BTreeMap<String, u64>>,
    pub rounds: u64,
    pub sessions: u64,
    pub turns: u64,
    pub entries: u64,
    pub recoveries: u64,
    /// Inputs beside the messages that start turns, by kind.
    pub inputs: BTreeMap<String, u64>,
    pub seconds: f64,
    pub failures: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Point {
    /// Times it was tried: a fail point may not be passed, and there may be no room to kill.
    pub tried: u64,
    pub struck: u64,
    /// From the strike to the next event of each session in flight, in milliseconds.
    pub recovered_ms: Vec<u64>,
}

impl Report {
    pub fn struck(&self) -> u64 {
        self.points.values().map(|point| point.struck).sum()
    }

    pub fn add(&mut self, more: Report) {
        for (name, point) in more.points {
            let own = self.points.entry(name).or_default();
            own.tried += point.tried;
            own.struck += point.struck;
            own.recovered_ms.extend(point.recovered_ms);
        }
        for (class, outcomes) in more.outcomes {
            let own = self.outcomes.entry(class).or_default();
            outcomes.into_iter().for_each(|(outcome, count)| *own.entry(outcome).or_default() += count);
        }
        self.rounds += more.rounds;
        self.sessions += more.sessions;
        self.turns += more.turns;
        self.entries += more.entries;
        self.recoveries += more.recoveries;
        more.inputs.into_iter().for_each(|(kind, count)| *self.inputs.entry(kind).or_default() += count);
        self.seconds = self.seconds.max(more.seconds);
        self.failures.extend(more.failures);
    }

    /// What was tried at least this often and never struck: a part of the promise that this run says nothing about.
    fn never_struck(&self, tries: u64) -> Vec<&str> {
        let never = self.points.iter().filter(|(_, point)| point.struck == 0 && point.tried >= tries);
        never.map(|(name, _)| name.as_str()).collect()
    }

    /// What the run was to do and did not.
    pub fn gaps(&self, tries: u64, at_least: u64) -> Vec<String> {
        let never = self.never_struck(tries).into_iter();
        let never = never.map(|name| format!("{name}: tried at least {tries} times and never struck"));
        let struck = self.struck();
        let few = (struck < at_least).then(|| format!("{struck} points were struck, of at least {at_least}"));
        never.chain(few).collect()
    }

    pub fn markdown(&self, command: &str) -> String {
        let mut text = String::new();
        let out = &mut text;
        // Writing to a string cannot fail.
        let _ = writeln!(
            out,
            "`{command}`: {} points in {} rounds, {:.0} s; {} sessions, {} turns, {} journal entries, {} recoveries; \
             **{} failures**.\n",
            self.struck(),
            self.rounds,
            self.seconds,
            self.sessions,
            self.turns,
            self.entries,
            self.recoveries,
            self.failures.len()
        );
        let inputs: Vec<String> = self.inputs.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        let _ = writeln!(out, "Inputs while sessions ran or waited: {}.\n", inputs.join(", "));
        let _ = writeln!(out, "| fault | tried | struck | next event p50, ms | p99, ms |\n|---|---|---|---|---|");
        for (name, point) in &self.points {
            let (p50, p99) = (quantile(&point.recovered_ms, 50), quantile(&point.recovered_ms, 99));
            let _ = writeln!(out, "| {name} | {} | {} | {p50} | {p99} |", point.tried, point.struck);
        }
        let _ = writeln!(out, "\n| effect class | outcomes of calls |\n|---|---|");
        for (class, outcomes) in &self.outcomes {
            let shown: Vec<String> = outcomes.iter().map(|(outcome, count)| format!("{count} {outcome}")).collect();
            let _ = writeln!(out, "| {class} | {} |", shown.join(", "));
        }
        text
    }
}

fn quantile(values: &[u64], percent: usize) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or("-".to_owned(), u64::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_of_lanes_are_added_up() {
        let point = |struck, ms: &[u64]| Point { tried: 2, struck, recovered_ms: ms.to_vec() };
        let one = Report {
            points: BTreeMap::from([("a".to_owned(), point(1, &[5])), ("b".to_owned(), point(0, &[]))]),
            outcomes: BTreeMap::from([("once".to_owned(), BTreeMap::from([("unknown".to_owned(), 2)]))]),
            failures: vec!["bad".to_owned()],
            ..Report::default()
        };
        let mut sum = one.clone();
        sum.add(one);
        assert_eq!((sum.struck(), sum.points["a"].tried, sum.failures.len()), (2, 4, 2));
        assert_eq!((sum.outcomes["once"]["unknown"], sum.never_struck(4)), (4, vec!["b"]));
        assert!(sum.never_struck(5).is_empty());
        assert!(sum.gaps(5, 2).is_empty());
        assert_eq!(sum.gaps(5, 3), ["2 points were struck, of at least 3"]);
        assert_eq!(sum.gaps(4, 2), ["b: tried at least 4 times and never struck"]);
        let text = sum.markdown("crash");
        assert!(text.contains("| a | 4 | 2 | 5 | 5 |") && text.contains("| once | 4 unknown |"), "{text}");
    }

    #[test]
    fn quantiles_of_few_values() {
        assert_eq!(quantile(&[], 50), "-");
        assert_eq!(quantile(&[3, 1, 2], 50), "2");
        assert_eq!(quantile(&[3, 1, 2], 99), "3");
    }
}
