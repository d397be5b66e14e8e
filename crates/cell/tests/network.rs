//! The stub, as programs of a room meet it: in a network namespace of its own, with a host double behind it.

mod host;
mod world;

use host::{Host, has, is_root, text, within};
use serde_json::json;
use std::fs;
use std::thread::sleep;
use std::time::Duration;
use world::World;

/// A cell with a way out. `None`: not here.
fn room(test: &str, world: &World) -> Option<Host> {
    room_with(test, world, "")
}

/// `first` is done before the cell starts.
fn room_with(test: &str, world: &World, first: &str) -> Option<Host> {
    if !is_root(test) || !has(test, &["ip", "unshare", "python3", "getent", "curl"]) {
        return None;
    }
    let resolver = world.directory().join("resolv.conf");
    fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").expect("written");
    let resolver = resolver.display();
    let around = format!(
        r#"unshare --net --mount /bin/sh -c 'ip link set lo up && ip addr add 127.2.0.1/8 dev lo && mount --bind {resolver} /etc/resolv.conf && {{ {first} :; }} && exec "$0"'"#
    );
    let socket = world.socket();
    let variables = [("LOOPD_OUTLET", socket.to_str().expect("UTF-8")), ("LOOPD_OUTLET_PORTS", "80,443")];
    let mut host = Host::launch_with("same", &around, "600", &variables);
    assert_eq!(host.attach(), Vec::new());
    Some(host)
}

/// Process id of the stub.
fn stub(host: &Host) -> Option<String> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", host.pid())).ok()?;
    let is_stub = |pid: &&str| {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"loopd-network\0network\0"))
    };
    children.split_whitespace().find(is_stub).map(str::to_owned)
}

fn python(script: &str) -> String {
    format!("python3 - <<'END'\nimport socket, os, time\n{script}\nEND")
}

#[test]
fn programs_that_know_of_no_proxy_reach_their_host() {
    let world = World::new();
    let Some(mut host) = room("programs_that_know_of_no_proxy_reach_their_host", &world) else { return };
    assert_eq!(stub(&host), None, "nobody has looked outside");
    let address = host.prints("getent ahostsv4 Example.com | head -1 | cut -d' ' -f1");
    assert!(address.starts_with("127.1."), "{address}");
    assert_eq!(host.prints("getent ahostsv4 example.com | head -1 | cut -d' ' -f1"), address);
    assert_ne!(host.prints("getent ahostsv4 example.org | head -1 | cut -d' ' -f1"), address);
    assert!(host.prints(&format!("getent hosts {address}")).contains("example.com"), "back from the address");
    assert_eq!(host.prints("curl --noproxy '*' -sS http://example.com/x"), "example.com:80");
    assert_eq!(host.prints("curl --noproxy '*' -sS http://example.com:443/x"), "example.com:443");
    assert_eq!(host.prints(&python("import urllib.request as r; print(r.build_opener(r.ProxyHandler({})).open('http://example.org/').read().decode())")), "example.org:80\n");
    assert_eq!(host.prints("exec 3<>/dev/tcp/greeter.example/443; cat <&3"), "hello\n");
    assert_eq!(world.asked()[0], "CONNECT example.com:80 HTTP/1.1");
}

#[test]
fn programs_that_know_of_a_proxy_speak_with_the_hosts() {
    let world = World::new();
    let Some(mut host) = room("programs_that_know_of_a_proxy_speak_with_the_hosts", &world) else { return };
    assert_eq!(host.prints("curl -sS http://example.com/x"), "GET http://example.com/x HTTP/1.1");
    assert_eq!(host.prints("curl -sS --proxytunnel http://example.com/x"), "example.com:80");
    assert_eq!(
        host.prints(&python("import urllib.request as r; print(r.urlopen('http://a.example/').read().decode())")),
        "GET http://a.example/ HTTP/1.1\n"
    );
    let own = host.prints("(printf 'HTTP/1.0 200 OK\\r\\n\\r\\nown' | timeout 5 python3 -c \"
import socket,sys
s=socket.create_server(('127.0.0.1',8080));c,_=s.accept();c.recv(999);c.sendall(sys.stdin.buffer.read());c.close()\" ) & 
        sleep 1; curl -sS http://127.0.0.1:8080/");
    assert_eq!(own, "own", "the room's own servers are not looked for outside");
}

#[test]
fn a_refusal_is_told_where_the_program_shows_it() {
    let world = World::new();
    let Some(mut host) = room("a_refusal_is_told_where_the_program_shows_it", &world) else { return };
    let direct = "curl --noproxy '*' -sS -w '%{http_code}'";
    assert_eq!(
        host.prints(&format!("{direct} http://refused.example/")),
        "`refused.example:80` is not allowed here\n403"
    );
    // A request that is longer than what lies in sockets, whose rest nobody reads.
    let long =
        format!("head -c 3000000 /dev/zero >body; {direct} -H 'Expect:' --data-binary @body http://refused.example/");
    assert_eq!(host.prints(&long), "`refused.example:80` is not allowed here\n403");
    let in_clear = host.prints(&python(
        "s=socket.create_connection(('refused.example',443)); time.sleep(0.3); s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n'); print(s.recv(99))",
    ));
    assert!(in_clear.contains("403"), "the host had decided before it spoke: {in_clear}");
    let silent = python("s=socket.create_connection(('refused.example',443)); print(s.recv(99))");
    assert_eq!(host.prints(&silent), "b''\n", "one that says nothing is not waited for");
    let hello = host.prints(&python(
        "
s=socket.create_connection(('refused.example',443)); s.sendall(b'\\x16\\x03\\x01')
try: print(s.recv(99))
except ConnectionResetError: print(b'')
",
    ));
    assert_eq!(hello, "b''\n", "not an answer in clear to a TLS hello");
}

#[test]
fn the_end_of_one_direction_is_not_the_end_of_the_other() {
    let world = World::new();
    let Some(mut host) = room("the_end_of_one_direction_is_not_the_end_of_the_other", &world) else { return };
    let counted = python(
        "s=socket.create_connection(('counter.example',443)); s.sendall(b'x'*5000000); s.shutdown(socket.SHUT_WR); print(s.makefile().read())",
    );
    assert_eq!(host.prints(&counted), "5000000 bytes\n\n");
    let taken = python(
        "s=socket.create_connection(('source.example',80)); time.sleep(0.5); n=0\nwhile b := s.recv(65536): n += len(b)\nprint(n)",
    );
    assert_eq!(host.prints(&taken), "33554432\n");
    let stub = stub(&host).expect("a stub");
    let status = fs::read_to_string(format!("/proc/{stub}/status")).expect("a process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("a number");
    assert!(peak < 12 << 10, "{peak} KiB: what a slow reader has not taken lies in memory");
}

#[test]
fn a_server_that_starts_again_is_waited_for() {
    let world = World::new();
    let Some(mut host) = room("a_server_that_starts_again_is_waited_for", &world) else { return };
    assert_eq!(host.prints("curl --noproxy '*' -sS http://example.com/"), "example.com:80");
    world.vanish();
    host.prints("(curl --noproxy '*' -sS http://late.example/ >answer 2>&1; echo done >>answer) >/dev/null 2>&1 &");
    sleep(Duration::from_millis(300));
    let answer = host.directory().join("answer");
    assert!(!fs::read_to_string(&answer).expect("begun").contains("done"), "it waits");
    world.listen();
    within("the answer", || fs::read_to_string(&answer).ok().filter(|text| text == "late.example:80done\n"));
}

#[test]
fn a_stub_that_dies_is_started_again() {
    let world = World::new();
    let Some(mut host) = room("a_stub_that_dies_is_started_again", &world) else { return };
    let address = host.prints("getent ahostsv4 example.com | head -1");
    let first = stub(&host).expect("a stub");
    host.prints(&format!("kill -9 {first}"));
    within("it is gone", || (stub(&host).as_ref() != Some(&first)).then_some(()));
    assert_eq!(host.prints("getent ahostsv4 example.com | head -1"), address, "a name has the same address again");
    assert_ne!(stub(&host).expect("a stub"), first);
    assert_eq!(host.prints("curl --noproxy '*' -sS http://example.com/"), "example.com:80");
}

#[test]
fn a_stub_outlives_what_tools_started() {
    let world = World::new();
    let Some(mut host) = room("a_stub_outlives_what_tools_started", &world) else { return };
    host.prints("getent hosts example.com");
    let first = stub(&host).expect("a stub");
    let result = host.run("bash", json!({"command": "sleep 100 & sleep 101", "timeout_ms": 300}));
    assert!(text(&result).contains("time limit"), "{result:?}");
    host.run("bash", json!({"restart": true}));
    assert_eq!(stub(&host), Some(first));
}

#[test]
fn floods_end_in_the_stub() {
    let world = World::new();
    let Some(mut host) = room("floods_end_in_the_stub", &world) else { return };
    // More connections than are carried, none of which says a word; names without number; noise; queries that never end.
    let flood = python(
        "
conns = [socket.create_connection(('silent.example', 443)) for _ in range(300)]
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.settimeout(3)
for n in range(2000):
    name = b''.join(bytes([len(l)]) + l for l in (b'h%d' % n, b'example')) + b'\\0'
    u.sendto(b'\\0\\1\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + name + b'\\0\\1\\0\\1', ('127.0.0.1', 53))
    if n % 7 == 0: u.sendto(os.urandom(n % 900), ('127.0.0.1', 53))
slow = []
for _ in range(30):
    s = socket.create_connection(('127.0.0.1', 53)); s.sendall(b'\\0\\x30\\0\\1'); slow.append(s)
print('flooded')
for c in conns: c.close()
for s in slow: s.close()
",
    );
    assert_eq!(host.prints(&flood), "flooded\n");
    assert_eq!(
        host.prints("curl --noproxy '*' -sS --retry 5 --retry-all-errors http://after.example/"),
        "after.example:80"
    );
    let stub = stub(&host).expect("a stub");
    let descriptors = fs::read_dir(format!("/proc/{stub}/fd")).expect("a process").count();
    assert!(descriptors <= 256 * 2 + 256 * 2 + 32, "{descriptors}");
    assert!(host.peak_kib() < 12 << 10, "the cell takes no part in it: {} KiB", host.peak_kib());
}

#[test]
fn few_descriptors_are_enough() {
    let world = World::new();
    let Some(mut host) = room_with("few_descriptors_are_enough", &world, "ulimit -n 260;") else { return };
    let many = python(
        "
for n in range(100):
    s = socket.create_connection(('greeter.h%d.example' % n, 443)); assert s.recv(9) == b'hello\\n'; s.close()
print('all')
",
    );
    assert_eq!(host.prints(&many), "all\n");
}

#[test]
fn dns_is_spoken_over_tcp_and_only_addresses_are_told() {
    let world = World::new();
    let Some(mut host) = room("dns_is_spoken_over_tcp_and_only_addresses_are_told", &world) else { return };
    let script = python(
        "
def ask(sock, kind, name=b'\\7example\\3com\\0'):
    q = b'\\0\\7\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0' + name + kind.to_bytes(2, 'big') + b'\\0\\1'
    sock.sendall(len(q).to_bytes(2, 'big') + q)
    n = int.from_bytes(sock.recv(2), 'big'); a = sock.recv(n)
    return (a[3] & 15, int.from_bytes(a[6:8], 'big'))
s = socket.create_connection(('127.0.0.1', 53))
print(ask(s, 1), ask(s, 28), ask(s, 65), ask(s, 16), ask(s, 1, b'\\3a b\\0'), ask(s, 12))
",
    );
    assert_eq!(host.prints(&script), "(0, 1) (0, 0) (0, 0) (0, 0) (3, 0) (3, 0)\n");
    let socket = stub(&host).expect("a stub");
    let rollup = fs::read_to_string(format!("/proc/{socket}/smaps_rollup")).expect("a process");
    let pss = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).expect("a sum");
    println!("the stub has {} PSS", pss.trim());
}

#[test]
fn a_cell_that_is_told_nonsense_says_what_it_takes() {
    let run = |ports: &str| {
        let outcome = std::process::Command::new(env!("CARGO_BIN_EXE_loopd-cell"))
            .args(["network", "/nowhere", ports])
            .output()
            .expect("the cell");
        String::from_utf8_lossy(&outcome.stderr).into_owned()
    };
    assert!(run("80,x").contains("accepted: numbers from 1 to 65535"), "{}", run("80,x"));
}
