//! Machines of QEMU with a guest that does little: boot, copy, sleep, end, and all that goes wrong on the way.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[path = "microvm/bench.rs"]
mod bench;

use bench::{Bench, Guest, PATIENCE, bench};
use loopd_sandbox::microvm::vmm::{Begin, Machine, Vmm, VmmError};
use std::fs;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::{Instant, timeout};

/// The template of all tests here; each has machines of its own.
async fn template(bench: &Bench) -> std::path::PathBuf {
    let into = bench.path("template");
    let mut guest = bench.boot("cold").await;
    let control = guest.control().await;
    bench.qemu.freeze(guest.machine.take().unwrap(), control, into.clone()).await.unwrap();
    into
}

async fn ended(machine: &mut Machine) -> String {
    let last = timeout(PATIENCE, machine.ended.wait_for(Option::is_some)).await.unwrap().unwrap();
    last.clone().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_boots_with_its_disks_and_answers() {
    let Some(mut bench) = bench("a guest that boots").await else { return };
    let layer = bench.path("layer");
    fs::write(&layer, [b'l'; 4096]).unwrap();
    bench.layers(vec![layer]);
    let mut guest = bench.boot("one").await;
    assert_eq!(guest.ask("echo one").await, "one");
    let clock = guest.ask("clock").await;
    assert!(clock.starts_with("tsc"), "a clock that costs an exit for each look is slow: {clock}");
    let disks = guest.ask("disks").await;
    assert_eq!(disks, "vda=base:ro:2048 vdb=session:rw:32768 vdc=layer0:ro:8");
    assert_eq!(guest.ask("read vda 4").await, "base");
    assert_eq!(guest.ask("read vdc 4").await, "llll");
    assert!(guest.ask("write vda x").await.starts_with("no"), "the base disk is everybody's");
    assert_eq!(guest.ask("write vdb of the session").await, "written");
    assert!(fs::read(bench.path("one.disk")).unwrap().starts_with(b"of the session"));
    guest.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn copies_of_a_frozen_machine_answer_and_are_strangers_to_each_other() {
    let Some(bench) = bench("copies of a machine").await else { return };
    let template = template(&bench).await;
    let begin = Begin::Template(template.clone());
    let before = fs::read(template.join("memory")).unwrap();
    let mut took = Vec::new();
    let mut living = Vec::new();
    for number in 0..20 {
        let name = format!("copy{number}");
        let begun = Instant::now();
        let mut guest = bench.start(&name, &begin).await.unwrap();
        assert_eq!(guest.ask(&format!("echo {name}")).await, name);
        took.push(begun.elapsed());
        assert_eq!(guest.ask(&format!("write vdb {name}")).await, "written");
        living.push(guest);
        if number % 5 == 4 {
            for mut guest in living.drain(..) {
                let own = guest.name.clone();
                assert_eq!(guest.ask(&format!("read vdb {}", own.len())).await, own);
                guest.ask("hold 8").await;
                guest.kill().await;
            }
        }
    }
    took.sort();
    eprintln!("restored to the first answer: p50 {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(before == fs::read(template.join("memory")).unwrap(), "no copy changes the template");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_suspended_machine_goes_on_where_it_was() {
    let Some(bench) = bench("a machine that sleeps").await else { return };
    let template = template(&bench).await;
    let mut guest = bench.start("sleeper", &Begin::Template(template)).await.unwrap();
    let sum = guest.ask("hold 40").await;
    let mut into = bench.path("asleep0");
    for round in 0..2 {
        guest.suspend(&bench.qemu, &into).await.unwrap();
        let begun = Instant::now();
        guest = bench.start("sleeper", &Begin::Suspended(into.clone())).await.unwrap();
        assert_eq!(guest.ask("sum").await, sum, "round {round}");
        eprintln!("woken after {:?}, {} bytes", begun.elapsed(), fs::metadata(&into).unwrap().len());
        into = bench.path("asleep1");
    }
    guest.kill().await;
    // One that was booted here, whose memory is a file, sleeps as well.
    let mut booted = bench.boot("booted").await;
    let sum = booted.ask("hold 4").await;
    booted.suspend(&bench.qemu, &bench.path("asleep2")).await.unwrap();
    let mut booted = bench.start("booted", &Begin::Suspended(bench.path("asleep2"))).await.unwrap();
    assert_eq!(booted.ask("sum").await, sum);
    booted.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_cannot_be_written_goes_on_and_leaves_nothing() {
    let Some(bench) = bench("a machine that cannot be written").await else { return };
    let mut guest = bench.boot("goes on").await;
    let names = || fs::read_dir(bench.path("")).unwrap().count();
    let refused = guest.suspend(&bench.qemu, &bench.path("nowhere/asleep")).await.unwrap_err();
    assert!(refused.to_string().contains("nowhere"), "{refused}");
    assert_eq!(guest.ask("echo still here").await, "still here");
    if let Some(small) = bench.small_disk("small") {
        let before = fs::read_dir(small.path()).unwrap().count();
        guest.ask("hold 20").await;
        let refused = guest.suspend(&bench.qemu, &small.path().join("asleep")).await.unwrap_err();
        assert!(matches!(refused, VmmError::Failed { .. }), "{refused}");
        assert_eq!(fs::read_dir(small.path()).unwrap().count(), before);
        assert_eq!(guest.ask("echo still here").await, "still here");
    }
    let before = names();
    let control = guest.control().await;
    let machine = guest.machine.take().unwrap();
    assert!(bench.qemu.freeze(machine, control, bench.path("nowhere/template")).await.is_err());
    assert_eq!(names(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_machine_is_made_of_is_refused_with_its_name() {
    let Some(mut bench) = bench("machines that do not start").await else { return };
    let refused = |started: Result<Guest, VmmError>| started.err().unwrap().to_string();

    let told = refused(bench.start_with("gone", &bench.path("gone.disk"), &Begin::Boot).await);
    assert!(told.contains("gone.disk"), "{told}");

    let told = refused(bench.start("none", &Begin::Template(bench.path("none"))).await);
    assert!(told.contains("none"), "{told}");

    let garbage = bench.path("garbage");
    fs::write(&garbage, vec![b'g'; 1 << 20]).unwrap();
    let told = refused(bench.start("none", &Begin::Suspended(garbage.clone())).await);
    assert!(told.contains("garbage"), "{told}");

    let whole = bench.shape();
    bench.layers((0..21).map(|_| garbage.clone()).collect());
    let told = refused(bench.start("many", &Begin::Boot).await);
    assert!(told.contains("22 at most"), "{told}");

    bench.set(loopd_sandbox::microvm::vmm::Shape { kernel: garbage, ..whole });
    let told = refused(bench.start("garbage", &Begin::Boot).await);
    assert!(told.contains("QEMU ended"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_of_another_shape_does_not_become_a_template() {
    let Some(mut bench) = bench("a template of another shape").await else { return };
    let template = template(&bench).await;
    let shape = bench.shape();
    bench.set(loopd_sandbox::microvm::vmm::Shape { memory_bytes: 2 * shape.memory_bytes, ..shape });
    let told = bench.start("other", &Begin::Template(template.clone())).await.err().unwrap().to_string();
    assert!(told.contains("megabytes of memory"), "{told}");
    // Its state is cut short.
    let shape = bench.shape();
    bench.set(loopd_sandbox::microvm::vmm::Shape { memory_bytes: shape.memory_bytes / 2, ..shape });
    let state = fs::read(template.join("state")).unwrap();
    fs::write(template.join("state"), &state[..state.len() / 2]).unwrap();
    match bench.start("cut", &Begin::Template(template)).await {
        Err(told) => eprintln!("{told}"),
        Ok(mut guest) => {
            let last = ended(guest.machine.as_mut().unwrap()).await;
            assert!(last.contains("load of migration failed"), "{last}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_machine_is_seen_with_its_last_words() {
    let Some(bench) = bench("a machine that ends").await else { return };
    let mut guest = bench.boot("killed").await;
    let pid = rustix::process::Pid::from_raw(guest.machine.as_ref().unwrap().pid as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    ended(guest.machine.as_mut().unwrap()).await;

    let template = template(&bench).await;
    for (order, words) in [("panic", "not syncing"), ("off", ""), ("restart", "")] {
        let mut guest = bench.start(order, &Begin::Template(template.clone())).await.unwrap();
        guest.say(order).await;
        let last = ended(guest.machine.as_mut().unwrap()).await;
        assert!(last.contains(words), "{order}: {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_on_the_console_costs_its_machine_alone() {
    let Some(bench) = bench("a console that is flooded").await else { return };
    let mut guest = bench.boot("flood").await;
    assert_eq!(guest.ask("flood 64").await, "flooded");
    assert_eq!(guest.ask("echo there").await, "there");
    guest.say("panic").await;
    let last = ended(guest.machine.as_mut().unwrap()).await;
    assert!(last.len() < 3 * loopd_domain::limits::MACHINE_LAST_WORDS_BYTES_MAX, "{}", last.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_later_server_has_the_machine_suspended() {
    let Some(bench) = bench("a machine that changes servers").await else { return };
    let mut guest = bench.boot("heir").await;
    let sum = guest.ask("hold 4").await;
    // All that the first server had of it but its process: console, error output, monitor.
    let machine = guest.machine.take().unwrap();
    let (process, pid) = (machine.process.try_clone().unwrap(), machine.pid);
    let mut first = machine.ended.clone();
    drop(machine);
    let machine = loopd_sandbox::microvm::qemu::Qemu::adopt(process, pid);
    let control: UnixStream = guest.control().await;
    let into = bench.path("heir.asleep");
    bench.qemu.suspend(&machine, control, into.clone()).await.unwrap();
    let mut own = machine.ended.clone();
    timeout(Duration::from_secs(20), own.wait_for(Option::is_some)).await.unwrap().unwrap();
    timeout(Duration::from_secs(20), first.wait_for(Option::is_some)).await.unwrap().unwrap();
    let mut guest = bench.start("heir", &Begin::Suspended(into)).await.unwrap();
    assert_eq!(guest.ask("sum").await, sum);
    guest.kill().await;
}
