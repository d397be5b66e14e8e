//! Rooms that are not made of the host's `/usr`.

use super::Subject;
use crate::{Found, RoomExit, RoomRoot, RoomSpec, SandboxError};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What the commands below need.
const PROGRAMS: [&str; 8] = ["sh", "bash", "cat", "id", "ls", "mkdir", "touch", "uname"];

pub(super) async fn layers_lie_over_the_hosts_root(subject: &Subject) {
    let images = subject.data().join("images-over-the-host");
    let (lower, upper) = (images.join("lower"), images.join("upper"));
    for (layer, name, text) in [
        (&lower, "usr/local/loopd-test/word", "lower\n"),
        (&lower, "usr/local/loopd-test/kept", "kept\n"),
        (&upper, "usr/local/loopd-test/word", "upper\n"),
        (&upper, "opt/loopd-test", "opt\n"),
        (&upper, "etc/loopd-test", "etc\n"),
        // What a room's root must be, it stays.
        (&upper, "etc/passwd", "root::0:0::/:/bin/sh\n"),
        (&upper, "etc/resolv.conf", "nameserver 192.0.2.1\n"),
        (&upper, "dev/null", "no device\n"),
        (&upper, "proc/version", "no kernel\n"),
    ] {
        let path = layer.join(name);
        fs::create_dir_all(path.parent().expect("below the layer")).expect("made");
        fs::write(path, text).expect("written");
    }
    let layers = vec![upper, lower];
    let spec = RoomSpec { root: RoomRoot::HostWith(layers.clone()), ..subject.spec() };
    let mut room = subject.enter(&spec).await;
    for (command, expected) in [
        ("cat /usr/local/loopd-test/word /usr/local/loopd-test/kept", "upper\nkept\n"),
        ("cat /opt/loopd-test /etc/loopd-test", "opt\netc\n"),
        ("ls -d /usr/bin/env /bin/sh", "/bin/sh\n/usr/bin/env\n"),
        ("id -un", "agent\n"),
        ("cat /etc/resolv.conf | head -n 1", "nameserver 127.0.0.1\n"),
        ("cat /dev/null; grep -c 'no kernel' /proc/version", "0\n"),
        ("echo $PWD; touch here && ls; echo written > /tmp/x && cat /tmp/x", "/workspace\nhere\nwritten\n"),
    ] {
        let answer = room.tool(command).await;
        assert_eq!(answer.text, expected, "{command}: {answer:?}");
    }
    for name in ["/data", "/layers", "/built", "/roots", "/room", "/etc/shadow"] {
        assert_ne!(room.tool(&format!("ls -d {name}")).await.status, 0, "{name}");
    }
    for name in ["/x", "/etc/x", "/usr/x", "/usr/local/loopd-test/word", "/opt/x", "/dev/x", "/var/x", "/run/x"] {
        for as_whom in ["tool", "cell"] {
            let answer = room.ask(as_whom, &format!("echo x > {name}")).await;
            assert_ne!(answer.status, 0, "{name} as {as_whom}");
        }
    }
    let found = subject.sandbox().inventory().await.expect("a list");
    let found = found.into_iter().find(|found| found.session == spec.session).expect("it lives");
    assert_eq!(found.layers, layers);
}

pub(super) async fn a_room_is_made_of_layers(subject: &Subject) {
    let images = subject.data().join("images-of-a-test");
    let (base, middle, upper) = (images.join("base"), images.join("middle: with, odd name"), images.join("upper"));
    lay_base(&base);
    lay_middle(&middle);
    lay_upper(&upper);
    let layers = vec![upper.clone(), middle, base];
    let spec = RoomSpec { root: RoomRoot::Layers(layers.clone()), ..subject.spec() };
    let mut room = subject.enter(&spec).await;
    for (command, expected) in [
        ("cat /etc/release", "upper\n"),
        ("cat /opt/kept", "middle\n"),
        // What an upper layer deletes is gone, one file or all that was there.
        ("ls -a /srv/gone /srv/emptied 2>/dev/null", "/srv/emptied:\n.\n..\nfresh\n"),
        // The image's users stay; who we are is ours to say.
        (
            "cat /etc/passwd | while IFS=: read n _ i _; do echo $n $i; done",
            "root 0\nagent 1000\nnobody 65534\nwww 33\n",
        ),
        ("id -un", "agent\n"),
        ("cat /etc/hostname", "room\n"),
        ("echo $PWD; touch here && ls; echo written > /tmp/x && cat /tmp/x", "/workspace\nhere\nwritten\n"),
        // Whatever the image has in the way of what a room needs.
        (
            "ls -d /proc/self/fd/ /dev/null /dev/shm /mnt/session/outputs",
            "/dev/null\n/dev/shm\n/mnt/session/outputs\n/proc/self/fd/\n",
        ),
        ("echo x > /dev/null && echo fine", "fine\n"),
        ("cd ~ && touch f && echo $PWD", "/home/agent\n"),
    ] {
        let answer = room.tool(command).await;
        assert_eq!(answer.text, expected, "{command}: {answer:?}");
    }
    // Nothing of the host, and nothing that can be written.
    for name in ["/data", "/layers", "/built", "/roots", "/room", "/etc/ld.so.cache", "/usr/bin/env", "/etc/shadow"] {
        assert_ne!(room.tool(&format!("ls -d {name}")).await.status, 0, "{name}");
    }
    for name in ["/x", "/etc/x", "/etc/release", "/usr/bin/x", "/opt/kept", "/dev/x", "/var/x", "/run/x", "/mnt/x"] {
        for as_whom in ["tool", "cell"] {
            let answer = room.ask(as_whom, &format!("echo x > {name}")).await;
            assert_ne!(answer.status, 0, "{name} as {as_whom}");
        }
    }
    assert_eq!(fs::read_to_string(upper.join("etc/release")).ok().as_deref(), Some("upper\n"));
    // Whoever clears images away learns what is in use.
    let found = subject.sandbox().inventory().await.expect("a list");
    let found = found.into_iter().find(|found| found.session == spec.session).expect("it lives");
    let can_sleep = subject.has_own_kernel();
    assert_eq!(found, Found { session: spec.session.clone(), room: true, can_sleep, files: true, layers });
    assert_eq!(room.leave().await, RoomExit::Signal(9));
    // The next room of the session may be another one.
    let mut room = subject.enter(&RoomSpec { root: RoomRoot::Host, epoch: spec.epoch, ..spec.clone() }).await;
    assert_eq!(room.tool("ls").await.text, "here\n");
    let found = subject.sandbox().inventory().await.expect("a list");
    assert!(found.iter().any(|found| found.session == spec.session && found.layers.is_empty()), "{found:?}");
    room.leave().await;
    subject.sandbox().remove(&spec).await.expect("removed");
    fs::remove_dir_all(images).expect("removed");
}

pub(super) async fn a_root_that_cannot_be_had_says_why(subject: &Subject) {
    let spec = |path: &Path| RoomSpec { root: RoomRoot::Layers(vec![path.to_owned()]), ..subject.spec() };
    // Where no room's root may lie.
    match subject.sandbox().start(&spec(Path::new("/etc"))).await {
        Err(SandboxError::Environment(told)) => assert!(told.contains("`/etc`"), "{told}"),
        other => panic!("{:?}", other.err()),
    }
    // Not there, or only a link to somewhere else.
    let away = subject.data().join("away");
    symlink("/etc", &away).expect("made");
    for path in [subject.data().join("absent"), away.clone(), away.join("ssl")] {
        match subject.sandbox().start(&spec(&path)).await {
            Err(SandboxError::Launcher(told) | SandboxError::Root(told)) => {
                assert!(told.contains("opening the layer"), "{told}")
            }
            Err(other) => panic!("{path:?}: {other}"),
            Ok(mut room) => {
                let exit = room.exit.wait_for(Option::is_some).await.expect("told").clone();
                assert!(
                    matches!(&exit, Some(RoomExit::Failed(told)) if told.contains("opening the layer")),
                    "{exit:?}"
                );
            }
        }
    }
    fs::remove_file(away).expect("removed");
}

/// A few programs, and what they are linked with.
fn lay_base(root: &Path) {
    let place = |from: &Path| {
        let to = root.join("usr").join(from.strip_prefix("/usr").or(from.strip_prefix("/")).expect("absolute"));
        fs::create_dir_all(to.parent().expect("below the root")).expect("made");
        fs::copy(from, to).expect("copied");
    };
    let programs = PROGRAMS.map(|program| PathBuf::from("/usr/bin").join(program));
    programs.iter().for_each(|program| place(program));
    // The test cell is linked as this program is; a real one needs nothing.
    let this = std::env::current_exe().expect("a program runs this");
    for program in programs.iter().chain([&this]) {
        let linked = Command::new("ldd").arg(program).output().expect("ldd is there");
        let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
        linked.split_whitespace().filter(|word| word.starts_with('/')).for_each(|library| place(Path::new(library)));
    }
    for name in ["bin", "lib", "lib64"] {
        symlink(format!("usr/{name}"), root.join(name)).expect("linked");
    }
    write(root, "etc/release", "base\n");
    write(root, "etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    write(root, "srv/gone", "base\n");
    write(root, "srv/emptied/old", "base\n");
}

fn lay_middle(root: &Path) {
    write(root, "etc/release", "middle\n");
    write(root, "opt/kept", "middle\n");
    write(
        root,
        "etc/passwd",
        "root:x:0:0:evil:/:/bin/sh\nwww:x:33:33::/var/www:/bin/sh\nuser:x:1000:1000::/:/bin/sh\n",
    );
    // What a room needs, as something else: links out, and files.
    for (target, name) in [("/etc", "workspace"), ("/", "proc"), ("../../../../etc", "home"), ("/etc/passwd", "mnt")] {
        symlink(target, root.join(name)).expect("linked");
    }
    write(root, "tmp", "a file\n");
    write(root, "dev", "a file\n");
}

fn lay_upper(root: &Path) {
    write(root, "etc/release", "upper\n");
    write(root, "srv/emptied/fresh", "upper\n");
    let opaque = rustix::fs::setxattr(root.join("srv/emptied"), "user.overlay.opaque", b"y", XattrFlags::empty());
    opaque.expect("the file system keeps attributes");
    let nothing = rustix::fs::makedev(0, 0);
    rustix::fs::mknodat(CWD, root.join("srv/gone"), FileType::CharacterDevice, Mode::empty(), nothing)
        .expect("a whiteout");
}

fn write(root: &Path, name: &str, content: &str) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().expect("below the root")).expect("made");
    fs::write(path, content).expect("written");
}
