//! What a benchmark found, as Markdown: tables, and each figure beside its target.

use crate::stats::Samples;
use std::fmt::Write as _;

/// One section of docs/benchmarks.md.
pub struct Report {
    /// The benchmark's name on the command line.
    pub name: &'static str,
    text: String,
    figures: Vec<Figure>,
}

struct Figure {
    what: String,
    measured: f64,
    target: Target,
}

/// The bound that a figure has to keep, and its unit.
#[derive(Clone, Copy)]
pub enum Target {
    AtMost(f64, &'static str),
    AtLeast(f64, &'static str),
}

impl Target {
    fn holds(self, measured: f64) -> bool {
        match self {
            Target::AtMost(bound, _) => measured <= bound,
            Target::AtLeast(bound, _) => measured >= bound,
        }
    }
}

impl Report {
    pub fn new(name: &'static str) -> Report {
        Report { name, text: String::new(), figures: Vec::new() }
    }

    pub fn say(&mut self, paragraph: &str) {
        let _ = writeln!(self.text, "{paragraph}\n");
    }

    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        line(&mut self.text, head);
        line(&mut self.text, &vec!["---"; head.len()]);
        for row in rows {
            line(&mut self.text, row);
        }
        self.text.push('\n');
    }

    pub fn figure(&mut self, what: impl Into<String>, measured: f64, target: Target) {
        self.figures.push(Figure { what: what.into(), measured, target });
    }

    /// False when a figure misses its target; a figure that is not a number misses every target.
    pub fn holds(&self) -> bool {
        self.figures.iter().all(|f| f.target.holds(f.measured))
    }

    pub fn markdown(&self) -> String {
        let mut out = self.text.clone();
        if !self.figures.is_empty() {
            line(&mut out, &["figure", "measured", "target", "reached"]);
            line(&mut out, &["---"; 4]);
            for figure in &self.figures {
                let (word, bound, unit) = match figure.target {
                    Target::AtMost(bound, unit) => ("at most", bound, unit),
                    Target::AtLeast(bound, unit) => ("at least", bound, unit),
                };
                let reached = if figure.target.holds(figure.measured) { "yes" } else { "**no**" };
                let measured = format!("{} {unit}", short(figure.measured));
                let target = format!("{word} {} {unit}", short(bound));
                line(
                    &mut out,
                    &[figure.what.clone(), measured.trim_end().into(), target.trim_end().into(), reached.into()],
                );
            }
        }
        out.trim_end().to_owned()
    }
}

fn line<S: AsRef<str>>(out: &mut String, cells: &[S]) {
    for cell in cells {
        let _ = write!(out, "| {} ", cell.as_ref());
    }
    out.push_str("|\n");
}

/// p50, p99 and spread of samples, as three cells.
pub fn cells(samples: &Samples) -> [String; 3] {
    let (low, high) = samples.spread();
    [short(samples.p50()), short(samples.p99()), format!("{} to {}", short(low), short(high))]
}

/// Round by round, as one cell.
pub fn ratio(these: &Samples, those: &Samples) -> String {
    let ratio = these.over(those);
    let (low, high) = ratio.spread();
    format!("{} ({} to {})", short(ratio.p50()), short(low), short(high))
}

/// Three significant digits, and no exponent.
pub fn short(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_target_is_said_and_counts() {
        let mut report = Report::new("step");
        report.figure("flatness", 1.2, Target::AtMost(1.3, ""));
        assert!(report.holds());
        report.figure("rate", 100.0, Target::AtLeast(2_500.0, "steps/s"));
        assert!(!report.holds());
        let text = report.markdown();
        assert!(text.contains("| flatness | 1.20 | at most 1.30 | yes |"), "{text}");
        assert!(text.contains("| rate | 100 steps/s | at least 2500 steps/s | **no** |"), "{text}");
    }

    #[test]
    fn nothing_measured_is_never_a_success() {
        let mut report = Report::new("step");
        report.figure("ratio", Samples::default().p50(), Target::AtMost(1.0, ""));
        assert!(!report.holds());
    }
}
