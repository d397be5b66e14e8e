//! What must not get through: each rule is tried as the model would, from a shell in the room.

use super::{Subject, Visitor};
use std::io::Write;
use std::net::TcpListener;

pub(super) async fn two_rooms_share_nothing(subject: &Subject) {
    let mut one = subject.enter(&subject.spec()).await;
    let mut two = subject.enter(&subject.spec()).await;
    let secret = "s3cret-of-room-one";
    let hide = format!(
        "for place in /workspace /home/agent /tmp /dev/shm /mnt/session/outputs; do echo {secret} > $place/hidden; done; \
         SECRET={secret} sleep 1000 >/dev/null 2>&1 &"
    );
    assert_eq!(one.tool(&hide).await.status, 0);
    let hunt = "grep -rsla 3cret-of-room /workspace /home /tmp /dev/shm /mnt /var /run /srv /opt /root /etc /proc/[0-9]*/environ \
                /proc/[0-9]*/cmdline | grep -v -e self -e \"/$$/\"";
    let own = one.tool(hunt).await.text;
    assert!(own.contains("/workspace/hidden") && own.contains("environ"), "the hunt must find its own: {own}");
    let found: Vec<String> =
        two.tool(hunt).await.text.lines().filter(|line| !line.contains("cmdline")).map(str::to_owned).collect();
    assert!(found.is_empty(), "{found:?}");
    if subject.has_own_kernel() {
        // Numbers of two kernels say nothing about each other.
        return;
    }
    let mut seen = vec![namespaces_of("/proc/self/ns")];
    for room in [&mut one, &mut two] {
        let links =
            room.tool("for n in mnt pid net ipc uts cgroup user; do readlink /proc/self/ns/$n; done").await.text;
        seen.push(links.lines().map(str::to_owned).collect());
    }
    for (index, namespaces) in seen.iter().enumerate() {
        assert_eq!(namespaces.len(), 7, "{namespaces:?}");
        for others in &seen[index + 1..] {
            assert!(namespaces.iter().all(|namespace| !others.contains(namespace)), "{seen:?}");
        }
    }
}

fn namespaces_of(directory: &str) -> Vec<String> {
    let name = |kind| std::fs::read_link(format!("{directory}/{kind}")).expect("this kernel has it");
    ["mnt", "pid", "net", "ipc", "uts", "cgroup", "user"].iter().map(|kind| name(kind).display().to_string()).collect()
}

pub(super) async fn the_host_is_out_of_reach(subject: &Subject) {
    let mark = subject.data().join("host-secret");
    std::fs::write(&mark, "of the host").expect("a file on the host");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a listener on the host");
    let port = listener.local_addr().expect("it is bound").port();
    let mut room = subject.enter(&subject.spec()).await;
    let pid = std::process::id();
    for command in [
        format!("cat {}", mark.display()),
        format!("ls {}", subject.data().display()),
        "ls /work /boot /sys/fs /var/log".to_owned(),
        "cat /etc/shadow".to_owned(),
        format!("bash -c 'echo > /dev/tcp/127.0.0.1/{port}'"),
        "bash -c 'echo > /dev/tcp/169.254.169.254/80'".to_owned(),
        format!("kill -0 {pid}"),
        format!("cat /proc/{pid}/environ"),
    ] {
        refused(&mut room, &command).await;
    }
    let interfaces = room.tool("tail -n +3 /proc/net/dev | cut -d: -f1").await;
    assert_eq!(interfaces.text.trim(), "lo");
    let local = "(exec 3<>/dev/udp/127.0.0.1/9) && echo up";
    assert_eq!(room.tool(&format!("bash -c '{local}'")).await.text, "up\n", "loopback must be up");
    assert_eq!(room.tool("uname -n").await.text, "room\n");
}

pub(super) async fn the_cell_is_given_nothing_else(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    let descriptors = room.ask("descriptors", "").await.text;
    let lines: Vec<&str> = descriptors.lines().collect();
    // What it listens on, and the connection that it took from there itself.
    let [null @ .., listener, connection] = &lines[..] else { panic!("{descriptors}") };
    assert_eq!(null, ["0 /dev/null", "1 /dev/null", "2 /dev/null"]);
    assert!(listener.starts_with("3 ") && connection.starts_with("4 "), "{descriptors}");
    assert!(!listener.contains('/') && !connection.contains('/'), "{descriptors}");
    let environment = room.cell("tr '\\0' '\\n' < /proc/1/environ | cut -d= -f1 | sort | tr '\\n' ' '").await;
    assert_eq!(environment.text, "HOME LANG LOOPD_ORPHAN_SECONDS LOOPD_TOOL_UID PATH TERM ");
}

pub(super) async fn tools_have_no_powers(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    let status =
        room.tool("grep -E '^(Cap(Prm|Eff|Amb|Inh)|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t ' ' '").await;
    let none = "0000000000000000";
    let expected =
        format!("CapInh: {none}\nCapPrm: {none}\nCapEff: {none}\nCapAmb: {none}\nNoNewPrivs: 1\nSeccomp: 2\n");
    assert_eq!(status.text, expected);
    assert_eq!(room.tool("id -u; id -g; whoami").await.text, "1000\n1000\nagent\n");
    let tools = room.tool("echo $LOOPD_TOOL_UID").await.text;
    let separate = tools.trim() != "same";
    let bounding = room.cell("grep CapBnd /proc/self/status | cut -f2").await;
    // CAP_KILL, CAP_SETGID, CAP_SETUID; or nothing where there is nobody to become.
    assert_eq!(bounding.text.trim(), if separate { "00000000000000e0" } else { none });
    if separate {
        for command in [
            "kill -9 1",
            "cat /proc/1/environ",
            "cat /proc/1/maps",
            "ls /proc/1",
            "ls /proc/1/root/",
            "touch /mnt/memory/x",
        ] {
            refused(&mut room, command).await;
        }
    }
    assert_eq!(room.ask("echo", "still here").await.text, "still here");
}

pub(super) async fn attacks_fail(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    for command in [
        "touch /x /usr/x /etc/x /bin/x /run/x",
        "mount -t tmpfs tmpfs /tmp",
        "mount -o remount,rw /",
        "umount /proc/sys",
        "umount -l /workspace",
        "unshare --user true",
        "unshare --mount true",
        "nsenter --target 1 --mount true",
        "chroot / true",
        "mknod /workspace/disk b 254 0",
        "mknod /workspace/memory c 1 1",
        "echo '|/workspace/x' > /proc/sys/kernel/core_pattern",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo x > /proc/self/uid_map",
        "ls -d /sys/fs/cgroup/*",
        "find / -name release_agent 2>/dev/null | grep .",
        "dmesg",
        "su -c true",
        "echo x > /proc/self/exe",
        "ln /usr/bin/env /workspace/env",
    ] {
        refused(&mut room, command).await;
    }
    // Masked files are empty rather than absent; nothing can be learnt from them.
    for name in ["kcore", "keys", "timer_list", "kmsg"] {
        assert_eq!(room.cell(&format!("head -c 10 /proc/{name} 2>/dev/null | wc -c")).await.text, "0\n", "{name}");
    }
    // Not there, or masked: what is written to it goes nowhere.
    for as_whom in ["tool", "cell"] {
        room.ask(as_whom, "echo c > /proc/sysrq-trigger; echo b > /proc/sysrq-trigger").await;
        assert_eq!(room.tool("echo still here").await.text, "still here\n", "{as_whom}");
    }
    // The program of the cell itself, tried by the cell: sealed.
    let overwrite = room.cell("sh -c 'echo x > /proc/1/exe'").await;
    assert_ne!(overwrite.status, 0, "{overwrite:?}");
    let setuid = room.tool("cp /bin/sh ./sh && chmod 4755 ./sh && ./sh -c 'id -u'").await;
    assert_eq!(setuid.text, "1000\n");
    for as_cell in ["mount -t tmpfs tmpfs /tmp", "touch /etc/x", "echo 1 > /proc/sys/net/ipv4/ip_forward"] {
        assert_ne!(room.cell(as_cell).await.status, 0, "as the cell: {as_cell}");
    }
}

pub(super) async fn system_calls_are_refused(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    let (perm, nosys, family) = (libc::EPERM, libc::ENOSYS, libc::EAFNOSUPPORT);
    let new_user = i64::from(libc::CLONE_NEWUSER);
    for (name, call, errno) in [
        ("clone with a user namespace", vec![libc::SYS_clone, new_user | i64::from(libc::SIGCHLD)], perm),
        ("clone3", vec![libc::SYS_clone3, 0, 88], nosys),
        ("unshare", vec![libc::SYS_unshare, new_user], perm),
        ("setns", vec![libc::SYS_setns, 0, 0], perm),
        ("ptrace", vec![libc::SYS_ptrace, 16, 1], perm),
        ("process_vm_readv", vec![libc::SYS_process_vm_readv, 1], perm),
        ("add_key", vec![libc::SYS_add_key], perm),
        ("keyctl", vec![libc::SYS_keyctl], perm),
        ("request_key", vec![libc::SYS_request_key], perm),
        ("bpf", vec![libc::SYS_bpf], perm),
        ("perf_event_open", vec![libc::SYS_perf_event_open], perm),
        ("io_uring_setup", vec![libc::SYS_io_uring_setup, 8], perm),
        ("userfaultfd", vec![libc::SYS_userfaultfd], perm),
        ("kexec_load", vec![libc::SYS_kexec_load], perm),
        ("init_module", vec![libc::SYS_init_module], perm),
        ("open_by_handle_at", vec![libc::SYS_open_by_handle_at], perm),
        ("io_uring_enter", vec![libc::SYS_io_uring_enter], perm),
        ("process_vm_writev", vec![libc::SYS_process_vm_writev, 1], perm),
        ("pidfd_getfd", vec![libc::SYS_pidfd_getfd], perm),
        ("kcmp", vec![libc::SYS_kcmp, 1, 1], perm),
        ("mount", vec![libc::SYS_mount], perm),
        ("fsopen", vec![libc::SYS_fsopen], perm),
        ("open_tree", vec![libc::SYS_open_tree], perm),
        ("move_mount", vec![libc::SYS_move_mount], perm),
        ("a personality of old", vec![libc::SYS_personality, 0x0040_0000], perm),
        ("typing into a terminal", vec![libc::SYS_ioctl, 0, libc::TIOCSTI as i64], perm),
        ("pasting into a console", vec![libc::SYS_ioctl, 0, libc::TIOCLINUX as i64], perm),
        ("a device node", vec![libc::SYS_mknodat, 0, 0, i64::from(libc::S_IFCHR)], perm),
        ("a whiteout left behind", vec![libc::SYS_renameat2, 0, 0, 0, 0, i64::from(libc::RENAME_WHITEOUT)], perm),
        ("another line discipline", vec![libc::SYS_ioctl, 0, libc::TIOCSETD as i64], perm),
        ("limits of the cell", vec![libc::SYS_prlimit64, 1, 7], perm),
        ("quotactl", vec![libc::SYS_quotactl], perm),
        ("reboot", vec![libc::SYS_reboot], perm),
        ("a raw socket", vec![libc::SYS_socket, i64::from(libc::AF_INET), i64::from(libc::SOCK_RAW), 1], perm),
        ("a socket of SCTP", vec![libc::SYS_socket, i64::from(libc::AF_INET), 1, 132], libc::EPROTONOSUPPORT),
        ("a pair of TIPC", vec![libc::SYS_socketpair, i64::from(libc::AF_TIPC), 1, 0], family),
        ("an algorithm socket", vec![libc::SYS_socket, i64::from(libc::AF_ALG), 5, 0], family),
        ("a packet socket", vec![libc::SYS_socket, i64::from(libc::AF_PACKET), 3, 0], family),
        ("a vsock", vec![libc::SYS_socket, i64::from(libc::AF_VSOCK), 1, 0], family),
        ("netlink audit", vec![libc::SYS_socket, i64::from(libc::AF_NETLINK), 3, 9], family),
        ("a call of the future", vec![4_000], nosys),
        ("an x32 call", vec![0x4000_0000 + 39], nosys),
    ] {
        assert_eq!(room.syscall(&call).await, errno, "{name}");
    }
    assert_eq!(room.syscall(&[libc::SYS_socket, i64::from(libc::AF_INET), 1, 0]).await, 0);
}

pub(super) async fn another_architecture_has_no_calls(subject: &Subject) {
    if cfg!(target_arch = "x86_64") {
        let mut room = subject.enter(&subject.spec()).await;
        // Killed by a signal where the kernel has no such calls at all; the program answers 0 where one went through.
        let status = room.ask("call32", "").await.status;
        assert!([libc::ENOSYS, -1].contains(&status), "{status}");
        #[cfg(target_arch = "x86_64")]
        assert_eq!(room.syscall(&[libc::SYS_modify_ldt, 0]).await, libc::EPERM);
    }
}

/// Sets of rules that the kernel lets one process be under.
const LANDLOCK_LAYERS: i32 = 16;

/// What a wall in front of files must not stand in the way of, and what it must.
pub(super) async fn files_move_and_devices_are_not_made(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    for place in ["/workspace", "/home/agent", "/mnt/session/outputs", "/tmp", "/dev/shm"] {
        let moved = room
            .tool(&format!(
                "cd {place} && mkdir a b && echo x > a/f && mv a/f b/f && ln b/f a/g && ln -s f b/l && mkfifo b/p && mv b a/b && \
                 truncate -s 0 a/b/f && cp /bin/true a/run && a/run && rm -r a && echo fine"
            ))
            .await;
        assert_eq!((moved.status, moved.text.as_str()), (0, "fine\n"), "{place}");
    }
    let written = room
        .tool("echo a > /dev/null && (echo b > /dev/stdout) | cat && echo 900 > /proc/self/oom_score_adj && echo fine")
        .await;
    assert_eq!(written.text, "b\nfine\n");
    // Nobody needs a power to make the first one, which is none but by name.
    for device in ["c 0 0", "c 1 3", "b 7 0"] {
        refused(&mut room, &format!("mknod /workspace/device {device}")).await;
    }
    // The guests' kernel has it, whatever the host's does.
    if subject.has_own_kernel() || subject.claims("landlock").await {
        assert_eq!(room.ask("landlock", "").await.status, LANDLOCK_LAYERS - 1, "one set of rules is in force already");
    }
}

/// What a guest's base disk has in tests, which is small; rooms on the host's root show all of them.
const OF_GUESTS: [&str; 3] = ["bash", "ls", "python3"];

pub(super) async fn ordinary_programs_work(subject: &Subject) {
    let mut room = subject.enter(&subject.spec()).await;
    for (program, command, expected) in [
        ("bash", "bash -c 'a=(1 2); echo ${#a[@]} $HOME'", "2 /home/agent\n"),
        ("ls", "mkdir -p d && touch d/f && ls -l d | wc -l && mkfifo p && test -p p && stat -c %U d", "2\nagent\n"),
        (
            "git",
            "git init -q g && cd g && git -c user.name=a -c user.email=a@b commit -q --allow-empty -m x && git rev-list --count HEAD",
            "1\n",
        ),
        (
            "python3",
            "/usr/bin/python3 -c 'import threading,subprocess,tempfile,socket,multiprocessing as m; l=m.Lock(); t=threading.Thread(target=print,args=(1,)); t.start(); t.join(); print(subprocess.check_output([\"echo\",\"2\"]).decode().strip())'",
            "1\n2\n",
        ),
        ("node", "node -e 'require(\"child_process\").execSync(\"true\"); setTimeout(()=>console.log(1),1)'", "1\n"),
        ("gcc", "echo 'int main(){return 42;}' > t.c && gcc t.c -o t && { ./t; echo $?; }", "42\n"),
        ("script", "script -qec 'tty' /dev/null | tr -d '\\r'", "/dev/pts/0\n"),
    ] {
        if subject.has_own_kernel() && !OF_GUESTS.contains(&program) {
            continue;
        }
        if room.tool(&format!("test -x /usr/bin/{program}")).await.status != 0 {
            skip(&format!("rooms have no `/usr/bin/{program}`"));
            continue;
        }
        let answer = room.tool(command).await;
        assert_eq!((answer.status, answer.text.as_str()), (0, expected), "{program}");
    }
}

/// There is no silent pass: see `tests/src/lib.rs`.
fn skip(reason: &str) {
    assert!(std::env::var_os("CI").is_none(), "skipped in CI: {reason}");
    eprintln!("skipped: {reason}");
    if let Some(path) = std::env::var_os("E2E_SKIPS") {
        let name = std::thread::current().name().unwrap_or("conformance").to_owned();
        let file = std::fs::OpenOptions::new().append(true).create(true).open(path);
        file.and_then(|mut file| writeln!(file, "{name}: {reason}")).expect("the list of skipped tests is writable");
    }
}

async fn refused(room: &mut Visitor, command: &str) {
    let answer = room.tool(command).await;
    assert_ne!(answer.status, 0, "this must fail: {command}: {answer:?}");
    assert!(
        !answer.text.contains("command not found") && answer.status != 127,
        "this must be tried: {command}: {answer:?}"
    );
}
