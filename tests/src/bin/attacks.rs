//! The table of `docs/security.md`: every attack on five grounds. `cargo xtask attacks` runs it.
//!
//! Arguments: the directory of Node modules in which `@anthropic-ai/sandbox-runtime` is.

use loopd_tests::attacks::loopd::Ground;
use loopd_tests::attacks::peer::{Kind, Peer};
use loopd_tests::attacks::{self, Attack, Verdict};
use loopd_tests::guest;

const ORDINARY: u32 = 65534;

#[tokio::main]
async fn main() {
    let modules = std::env::args_os().nth(1).expect("usage: attacks NODE_MODULES");
    let list = attacks::all();
    let root = on_loopd(Ground::new(None).await, &list).await;
    let user = on_loopd(Ground::new(Some(ORDINARY)).await, &list).await;
    let (machines, _turn) = guest::root().expect("what machines are made of");
    let machines = on_loopd(Ground::of_machines(machines).await, &list).await;
    let bubblewrap = on_peer(Kind::Bubblewrap, &list);
    let runtime = on_peer(Kind::SandboxRuntime(modules.into()), &list);
    println!(
        "| class | attack | loopd, by root | loopd, by a user | loopd, `microvm` | bubblewrap | sandbox runtime |"
    );
    println!("|---|---|---|---|---|---|---|");
    let mut notes = Vec::new();
    for (index, attack) in list.iter().enumerate() {
        let cells =
            [&root, &user, &machines, &bubblewrap, &runtime].map(|verdicts| cell(&verdicts[index], attack, &mut notes));
        println!(
            "| {} | [{}](../tests/attacks/{}): {} | {} |",
            attack.class,
            attack.name,
            attack.file,
            attack.tries,
            cells.join(" | ")
        );
    }
    println!("\nWhat got through:\n");
    notes.iter().for_each(|note| println!("- {note}"));
}

async fn on_loopd(ground: Ground, list: &[Attack]) -> Vec<Verdict> {
    let mut verdicts = Vec::new();
    for attack in list {
        verdicts.push(ground.attack(attack).await);
        eprintln!("loopd {}: {:?}", attack.name, verdicts.last());
    }
    verdicts
}

fn on_peer(kind: Kind, list: &[Attack]) -> Vec<Verdict> {
    let peer = Peer::new(kind);
    let tried = list.iter().map(|attack| {
        let verdict = peer.attack(attack);
        eprintln!("peer {}: {verdict:?}", attack.name);
        verdict
    });
    tried.collect()
}

fn cell(verdict: &Verdict, attack: &Attack, notes: &mut Vec<String>) -> &'static str {
    match verdict {
        Verdict::Held(_) => "held",
        Verdict::Untried(_) if attack.bare.is_some() => "no limit",
        Verdict::Untried(_) if attack.inside.is_some() => "no loop inside",
        Verdict::Untried(_) => "not tried",
        Verdict::Through(how) => {
            let note = format!("`{}`: {how}", attack.name);
            if !notes.contains(&note) {
                notes.push(note);
            }
            "**through**"
        }
    }
}
