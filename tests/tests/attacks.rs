//! Every attack of `tests/attacks`, in rooms of a loopd that root started and of one that an ordinary user started.

use futures_util::{StreamExt, stream};
use loopd_tests::attacks::loopd::Ground;
use loopd_tests::attacks::{self, Attack, Verdict};
use loopd_tests::http::fenced;
use loopd_tests::{guest, skip};
use std::path::Path;

/// `nobody`: no files, no rights, on every machine.
const ORDINARY: u32 = 65534;
/// Names the only attack to be tried, for whoever looks into one.
const ONLY: &str = "LOOPD_TEST_ATTACK";
/// Sessions that are attacked at the same time.
const AT_ONCE: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn all_are_held_in_rooms_that_root_makes() {
    if !rustix::process::geteuid().is_root() {
        return skip("only root can be root");
    }
    all_held(Ground::new(None).await, AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_held_in_rooms_that_an_ordinary_user_makes() {
    let user = rustix::process::geteuid().is_root().then_some(ORDINARY);
    all_held(Ground::new(user).await, AT_ONCE).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_are_held_in_rooms_with_a_kernel_of_their_own() {
    let Some((root, _turn)) = guest::root() else { return };
    all_held(Ground::of_machines(root).await, 1).await;
}

async fn all_held(ground: Ground, at_once: usize) {
    let mut holes = Vec::new();
    // Those that take what they can get come last, one after the other.
    let only = std::env::var(ONLY).ok();
    let wanted = attacks::all().into_iter().filter(|attack| only.as_ref().is_none_or(|only| attack.name == *only));
    let (greedy, others): (Vec<_>, Vec<_>) = wanted.partition(|attack| attack.class == "exhaustion");
    let ground = &ground;
    let mut verdicts: Vec<(Attack, Verdict)> = stream::iter(others)
        .map(|attack| async move { (attack.clone(), ground.attack(&attack).await) })
        .buffered(at_once)
        .collect()
        .await;
    for attack in greedy {
        verdicts.push((attack.clone(), ground.attack(&attack).await));
    }
    for (attack, verdict) in verdicts {
        println!("{:10} {:24} {verdict:?}", attack.class, attack.name);
        match verdict {
            Verdict::Held(_) => {}
            Verdict::Through(how) => holes.push(format!("{}: {how}", attack.name)),
            Verdict::Untried(why) => skip(&format!("{}: {why}", attack.name)),
        }
    }
    assert!(holes.is_empty(), "got through:\n{}", holes.join("\n"));
}

/// What a room can see of its walls is what the committed text says: a wall that falls, and one that is new, show here.
#[tokio::test(flavor = "multi_thread")]
async fn a_room_sees_what_is_expected() {
    let root = rustix::process::geteuid().is_root();
    for (name, user, possible) in [("root", None, root), ("user", root.then_some(ORDINARY), true)] {
        if !possible {
            skip("only root can be root");
            continue;
        }
        sees(&Ground::new(user).await, name).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_room_with_a_kernel_of_its_own_sees_what_is_expected() {
    let Some((root, _turn)) = guest::root() else { return };
    sees(&Ground::of_machines(root).await, "microvm").await;
}

async fn sees(ground: &Ground, name: &str) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("attacks/introspection");
    let script = std::fs::read_to_string(directory.join("look.sh")).expect("it is there");
    let seen = ground.introspect(&fenced(&script)).await;
    let path = directory.join(format!("{name}.txt"));
    if std::env::var_os("LOOPD_TEST_ACCEPT").is_some() {
        std::fs::write(&path, format!("{seen}\n")).expect("written");
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(seen.trim(), expected.trim(), "`{}`; if this is right, run with LOOPD_TEST_ACCEPT=1", path.display());
}
