//! A host with both versions: controllers in trees of their own, and a single tree without any, for the manager of services.

use super::host::{LIMITS, cgroup, diagnosed_in, patient};
use loopd_tests::Server;
use loopd_tests::http::{fenced, text, tool_results};
use loopd_tests::server::Options;
use rustix::fs::{XattrFlags, setxattr};
use serde_json::json;

pub const SCENES: [&str; 1] = ["hybrid::the_trees_with_controllers_are_used"];

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a part of a test in `cgroup2.rs`, in its machine"]
async fn the_trees_with_controllers_are_used() {
    // A mark there means nothing for the other trees.
    let unit = cgroup("unified/system.slice/loopd.service");
    setxattr(&unit, "trusted.delegate", b"1", XattrFlags::empty()).expect("marked");
    let options = patient(Options::default());
    diagnosed_in("version 1", &options, &LIMITS, "");
    let server = Server::with(options);
    let http = server.http();
    let environment = json!({"limits": {"memory_bytes": 96u64 << 20}, "networking": {"type": "none"}});
    let hog = fenced("head -c 1000000000 /dev/zero | tail -n 1 | wc -c");
    let answer = http.invoke(json!({"model": "builtin/shell", "environment": environment, "input": hog})).await;
    let events = http.events(answer["session_id"].as_str().expect("a session")).await;
    let said = tool_results(&events).last().map(|result| text(&result["content"])).unwrap_or_default();
    assert!(said.contains("memory limit of 96 MiB was reached"), "{said}");
}
