//! Machines of QEMU with a guest that does little: boot, copy, sleep, end, and all that goes wrong on the way.

#![allow(clippy::unwrap_used, reason = "tests and their helpers")]

#[path = "microvm/bench.rs"]
mod bench;

use bench::{Bench, Guest, PATIENCE, bench};
use loopd_sandbox::Accelerator;
use loopd_sandbox::microvm::qemu::Qemu;
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
async fn a_kernel_that_comes_up_is_told_from_one_that_does_not() {
    let Some(bench) = bench("the trial of a kernel").await else { return };
    let kernel = bench.shape().kernel;
    assert_eq!(Qemu::trial(&kernel, Accelerator::Emulation, PATIENCE).await.unwrap(), None);
    // Cut off in the middle, it is no kernel any more, though it begins like one.
    let cut = bench.path("cut");
    let whole = fs::read(&kernel).unwrap();
    fs::write(&cut, [&whole[..4 << 20], &vec![0; whole.len() - (4 << 20)]].concat()).unwrap();
    let fault = Qemu::trial(&cut, Accelerator::Emulation, Duration::from_secs(2)).await.unwrap().unwrap();
    assert!(fault.contains("come up") || fault.contains("QEMU ended"), "{fault}");
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
    let at_once = tokio::join!(bench.start("a", &begin), bench.start("b", &begin), bench.start("c", &begin));
    for started in <[_; 3]>::from(at_once) {
        let mut guest = started.unwrap();
        let own = guest.name.clone();
        assert_eq!(guest.ask(&format!("echo {own}")).await, own);
        guest.kill().await;
    }
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
    let machine = Qemu::adopt(process, pid);
    let control: UnixStream = guest.control().await;
    let into = bench.path("heir.asleep");
    bench.qemu.suspend(&machine, control, into.clone(), bench.disk("heir")).await.unwrap();
    let mut own = machine.ended.clone();
    timeout(Duration::from_secs(20), own.wait_for(Option::is_some)).await.unwrap().unwrap();
    timeout(Duration::from_secs(20), first.wait_for(Option::is_some)).await.unwrap().unwrap();
    let mut guest = bench.start("heir", &Begin::Suspended(into)).await.unwrap();
    assert_eq!(guest.ask("sum").await, sum);
    guest.kill().await;
}

/// Where another server's data is, for [`a_server_that_starts_a_machine_and_is_killed`].
const PLACE: &str = "LOOPD_TEST_MACHINES";

/// The other server. It waits to be killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "started by another test"]
async fn a_server_that_starts_a_machine_and_is_killed() {
    let bench = bench::in_place(std::env::var_os(PLACE).unwrap().into()).await.unwrap();
    let guest = bench.boot("heir").await;
    fs::write(bench.path("pid.new"), guest.machine.as_ref().unwrap().pid.to_string()).unwrap();
    fs::rename(bench.path("pid.new"), bench.path("pid")).unwrap();
    std::future::pending::<()>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_outlives_the_server_that_started_it() {
    let Some(bench) = bench("a machine whose server is killed").await else { return };
    let mut server = std::process::Command::new(std::env::current_exe().unwrap());
    server.args(["--exact", "a_server_that_starts_a_machine_and_is_killed", "--ignored"]);
    server.stdout(std::process::Stdio::null());
    let mut server = server.env(PLACE, bench.path("")).spawn().unwrap();
    let pid = timeout(PATIENCE, async {
        loop {
            match fs::read_to_string(bench.path("pid")) {
                Ok(pid) => break pid.parse::<u32>().unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    let pid = pid.await.unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    let number = rustix::process::Pid::from_raw(pid as i32).unwrap();
    let process = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty()).unwrap();
    let mut guest = bench.meet("heir", Qemu::adopt(process, pid)).await;
    let sum = guest.ask("hold 4").await;
    // Nobody hears its console any more.
    assert_eq!(guest.ask("flood 64").await, "flooded");
    let into = bench.path("heir.asleep");
    guest.suspend(&bench.qemu, &into).await.unwrap();
    ended(guest.machine.as_mut().unwrap()).await;
    let mut guest = bench.start("heir", &Begin::Suspended(into)).await.unwrap();
    assert_eq!(guest.ask("sum").await, sum);
    guest.kill().await;
}

/// Prints figures; nothing is asserted about them, as they are this machine's: `cargo test … figures -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, and takes a minute"]
async fn figures() {
    let Some(mut bench) = bench("figures of machines").await else { return };
    let mut cold = Vec::new();
    for number in 0..5 {
        let begun = Instant::now();
        bench.boot(&format!("cold{number}")).await.kill().await;
        cold.push(begun.elapsed());
    }
    cold.sort();
    eprintln!("cold boot to the guest's first word, and its end: p50 {:?}, longest {:?}", cold[2], cold[4]);
    let begun = Instant::now();
    let template = template(&bench).await;
    eprintln!(
        "boot and freeze: {:?}; {} bytes of state",
        begun.elapsed(),
        fs::metadata(template.join("state")).unwrap().len()
    );
    let (mut took, mut started) = (Vec::new(), Vec::new());
    for number in 0..100 {
        let begun = Instant::now();
        let mut guest = bench.start(&format!("copy{number}"), &Begin::Template(template.clone())).await.unwrap();
        started.push(begun.elapsed());
        guest.ask("echo x").await;
        took.push(begun.elapsed());
        guest.kill().await;
    }
    took.sort();
    started.sort();
    eprintln!(
        "restored to the first answer: p50 {:?}, p99 {:?}; of that to the start's return: p50 {:?}",
        took[50], took[98], started[50]
    );
    let mut living = Vec::new();
    for number in 0..20 {
        let mut guest = bench.start(&format!("lives{number}"), &Begin::Template(template.clone())).await.unwrap();
        guest.ask("echo x").await;
        living.push(guest);
    }
    let pss: u64 = living.iter().map(|guest| pss_kb(guest.machine.as_ref().unwrap().pid)).sum();
    eprintln!("proportional set size of each of 20: {} KB", pss / 20);
    drop(living);
    let shape = bench.shape();
    bench.set(loopd_sandbox::microvm::vmm::Shape { memory_bytes: 512 << 20, ..shape });
    let mut guest = bench.boot("large").await;
    let sum = guest.ask("hold 200").await;
    let into = bench.path("large.asleep");
    let begun = Instant::now();
    guest.suspend(&bench.qemu, &into).await.unwrap();
    eprintln!("200 MB suspended in {:?}, {} bytes", begun.elapsed(), fs::metadata(&into).unwrap().len());
    let begun = Instant::now();
    let mut guest = bench.start("large", &Begin::Suspended(into)).await.unwrap();
    guest.ask("echo x").await;
    eprintln!("resumed to the first answer in {:?}", begun.elapsed());
    assert_eq!(guest.ask("sum").await, sum);
    guest.kill().await;
}

fn pss_kb(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find(|line| line.starts_with("Pss:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
