//! Cgroup version 2, as it is on most hosts and need not be on the one that runs tests: tried in a machine with a plain Linux.
//!
//! The ignored tests of [`unified`] and [`hybrid`] are what is tried there, each a host as loopd may find it: who starts it, in which
//! cgroup, and what that one may do. They make cgroups at the top of the tree, so they are for a machine that is thrown away.

#[path = "cgroup2/host.rs"]
mod host;
#[path = "cgroup2/hybrid.rs"]
mod hybrid;
#[path = "cgroup2/unified.rs"]
mod unified;

use loopd_tests::linux::boot;

#[test]
fn rooms_are_limited_where_there_is_only_version_two() {
    let Some(report) = boot("unified") else { return };
    report.all_passed(&unified::SCENES);
}

#[test]
fn rooms_are_limited_where_there_are_both_versions() {
    let Some(report) = boot("hybrid") else { return };
    report.all_passed(&hybrid::SCENES);
}
