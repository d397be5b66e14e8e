//! Every attack of `tests/attacks`, in rooms of a loopd that root started and of one that an ordinary user started.

use loopd_tests::attacks::loopd::Ground;
use loopd_tests::attacks::{self, Verdict};
use loopd_tests::skip;

/// `nobody`: no files, no rights, on every machine.
const ORDINARY: u32 = 65534;

#[tokio::test(flavor = "multi_thread")]
async fn all_are_held_in_rooms_that_root_makes() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be root");
    }
    all_held(None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_held_in_rooms_that_an_ordinary_user_makes() {
    let user = rustix::process::geteuid().is_root().then_some(ORDINARY);
    all_held(user).await;
}

async fn all_held(user: Option<u32>) {
    let ground = Ground::new(user).await;
    let mut holes = Vec::new();
    for attack in attacks::all() {
        let verdict = ground.attack(&attack).await;
        println!("{:10} {:24} {verdict:?}", attack.class, attack.name);
        match verdict {
            Verdict::Held(_) => {}
            Verdict::Through(how) => holes.push(format!("{}: {how}", attack.name)),
            Verdict::Untried(why) => skip(&format!("{}: {why}", attack.name)),
        }
    }
    assert!(holes.is_empty(), "got through:\n{}", holes.join("\n"));
}
