//! Counting tests: what runners print, added up to one closing line.
//!
//! What is left out by `#[ignore = "why"]` (a program that prints figures, a part that another test starts) is no test of
//! the suite and is not counted.

use std::collections::BTreeSet;
use std::ops::AddAssign;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Tally {
    pub passed: u64,
    pub failed: u64,
    pub skipped: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, more: Tally) {
        self.passed += more.passed;
        self.failed += more.failed;
        self.skipped += more.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

impl Tally {
    /// `test result: ok. 52 passed; 0 failed; 1 ignored; …`, one line for each test program.
    pub fn of_libtest(output: &str) -> Tally {
        let mut tally = Tally::default();
        for line in output.lines().filter(|line| line.starts_with("test result:")) {
            tally += Tally { passed: before(line, " passed"), failed: before(line, " failed"), skipped: 0 };
        }
        tally
    }

    /// `Summary [ 1.2s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped`.
    pub fn of_nextest(output: &str) -> Tally {
        let plain = without_colour(output);
        let Some(line) = plain.lines().rfind(|line| line.trim_start().starts_with("Summary [")) else {
            return Tally::default();
        };
        let failed = before(line, " failed") + before(line, " timed out") + before(line, " exec failed");
        Tally { passed: before(line, " passed"), failed, skipped: 0 }
    }

    /// Python's unittest: `Ran 12 tests in 3.4s`, then `OK (skipped=1)` or `FAILED (failures=1, errors=2, skipped=1)`.
    pub fn of_unittest(output: &str) -> Tally {
        let ran = output.lines().rfind(|line| line.starts_with("Ran ")).map_or(0, |line| before(line, " test"));
        let verdict = output.lines().rfind(|line| line.starts_with("OK") || line.starts_with("FAILED")).unwrap_or("");
        let failed = after(verdict, "failures=") + after(verdict, "errors=");
        let skipped = after(verdict, "skipped=");
        Tally { passed: ran.saturating_sub(failed + skipped), failed, skipped }
    }

    /// Node's test runner in TAP: `# pass 12`, `# fail 0`, `# cancelled 0`, `# skipped 0`.
    pub fn of_tap(output: &str) -> Tally {
        let of = |name: &str| {
            let line = output.lines().rfind(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
        };
        Tally { passed: of("# pass "), failed: of("# fail ") + of("# cancelled "), skipped: of("# skipped ") }
    }

    /// The crash harness: `crash: 80 passed, 0 failed`, each point a test.
    pub fn of_crash(output: &str) -> Tally {
        let line = output.lines().rfind(|line| line.starts_with("crash: ")).unwrap_or("");
        Tally { passed: before(line, " passed"), failed: before(line, " failed"), skipped: 0 }
    }
}

/// Tests that nextest saw fail and then pass: `  FLAKY 2/2 [ 0.1s] (1/9) package::program name`, once each.
pub fn unsteady(output: &str) -> BTreeSet<String> {
    let plain = without_colour(output);
    let lines = plain.lines().filter_map(|line| line.trim_start().strip_prefix("FLAKY "));
    lines.filter_map(|line| Some(line.split_once(']')?.1.trim().to_owned())).map(without_count).collect()
}

/// Without the count that may stand before a test's name.
fn without_count(name: String) -> String {
    match name.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((_, rest)) => rest.trim().to_owned(),
        None => name,
    }
}

/// The number that stands right before `word`; 0 where there is none.
fn before(line: &str, word: &str) -> u64 {
    let digits = line.split_once(word).map(|(left, _)| left.rsplit(|c: char| !c.is_ascii_digit()).next());
    digits.flatten().and_then(|d| d.parse().ok()).unwrap_or(0)
}

/// The number that stands right after `word`; 0 where there is none.
fn after(line: &str, word: &str) -> u64 {
    let digits = line.split_once(word).map(|(_, right)| right.split(|c: char| !c.is_ascii_digit()).next());
    digits.flatten().and_then(|d| d.parse().ok()).unwrap_or(0)
}

fn without_colour(text: &str) -> String {
    let mut parts = text.split('\x1b');
    let first = parts.next().unwrap_or("").to_owned();
    parts.fold(first, |plain, part| plain + part.split_once('m').map_or(part, |(_, rest)| rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(passed: u64, failed: u64, skipped: u64) -> Tally {
        Tally { passed, failed, skipped }
    }

    #[test]
    fn libtest_programs_are_added_up() {
        let output = "test a ... ok\ntest result: ok. 52 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
                      noise\ntest result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured\n";
        assert_eq!(Tally::of_libtest(output), tally(55, 2, 0));
        assert_eq!(Tally::of_libtest(""), tally(0, 0, 0));
    }

    #[test]
    fn nextest_summaries_are_read() {
        let line = "     Summary [   0.512s] 12 tests run: 10 passed (1 slow), 1 failed, 1 timed out, 3 skipped";
        assert_eq!(Tally::of_nextest(line), tally(10, 2, 0));
        let coloured = "\x1b[32m     Summary\x1b[0m [ 0.5s] \x1b[1m2\x1b[0m tests run: \x1b[1m2\x1b[0m passed, \x1b[1m0\x1b[0m skipped";
        assert_eq!(Tally::of_nextest(coloured), tally(2, 0, 0));
    }

    #[test]
    fn what_passed_when_run_again_is_named_once() {
        let output = "   FLAKY 2/2 [   0.512s] (  3/12) loopd::cli a_test\n   FLAKY 2/2 [   0.512s] loopd::cli a_test\n PASS [1s] b";
        assert_eq!(unsteady(output), BTreeSet::from(["loopd::cli a_test".to_owned()]));
    }

    #[test]
    fn points_of_the_crash_harness_are_read() {
        assert_eq!(Tally::of_crash("noise\ncrash: 80 passed, 1 failed\n"), tally(80, 1, 0));
        assert_eq!(Tally::of_crash("crash: no point was struck\n"), tally(0, 0, 0));
    }

    #[test]
    fn unittest_and_tap_are_read() {
        assert_eq!(Tally::of_unittest("....\nRan 12 tests in 3.4s\n\nOK\n"), tally(12, 0, 0));
        assert_eq!(
            Tally::of_unittest("Ran 12 tests in 3.4s\n\nFAILED (failures=1, errors=2, skipped=1)\n"),
            tally(8, 3, 1)
        );
        assert_eq!(Tally::of_tap("# tests 5\n# pass 3\n# fail 1\n# cancelled 1\n# skipped 0\n"), tally(3, 2, 0));
    }
}
