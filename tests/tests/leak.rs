//! Two sessions of two agents at once: each hides a secret wherever a shell can put one, and hunts for the other's and for
//! the server's with everything that a shell offers. The hunt is proven by what it must find: the hunter's own.

use loopd_tests::http::fenced;
use loopd_tests::server::Options;
use loopd_tests::{Http, Server};
use serde_json::{Value, json};

/// Puts the secret everywhere, and keeps it alive after the call: files, memory of processes, arguments, environment,
/// a socket on the loopback, an abstract socket, shared memory.
const HIDE: &str = r#"
S=loopd-secret-@WHO@-@RANDOM@
for place in /workspace /tmp /var/tmp /dev/shm "$HOME" /mnt/session/outputs; do
  echo "$S" > "$place/secret-@WHO@" 2>/dev/null
done
export HIDDEN="$S"
bash -c 'sleep 600' "$S" > /dev/null 2>&1 &
perl -MIO::Socket::INET -e '
  $l = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => @PORT@, Listen => 5, ReuseAddr => 1) or die "listen: $!";
  while ($c = $l->accept) { print $c $ARGV[0], "\n"; close $c }' "$S" > /dev/null 2>&1 &
perl -MSocket -e '
  socket($s, PF_UNIX, SOCK_STREAM, 0); bind($s, pack_sockaddr_un("\0" . $ARGV[0])) or die "bind: $!"; listen($s, 1); sleep 600' \
  "$S" > /dev/null 2>&1 &
perl -e '$id = shmget(0x10@PORT@, 4096, 01666); shmwrite($id, $ARGV[0], 0, 100); sleep 600' "$S" > /dev/null 2>&1 &
sleep 0.5
echo hidden
"#;

/// Looks everywhere. The pattern does not match itself, so the hunter's own commands are not taken for the prey.
const HUNT: &str = r#"
P='@PATTERN@'
{
  grep -rhaoE "$P" / --exclude-dir=proc --exclude-dir=sys --exclude-dir=usr
  for p in /proc/[0-9]*; do
    cat $p/environ $p/cmdline $p/maps $p/mountinfo 2>/dev/null | tr '\0' '\n' | grep -aoE "$P"
    for fd in $p/fd/*; do [ -f "$fd" ] && timeout 1 head -c 1000000 "$fd" 2>/dev/null | grep -aoE "$P"; done
    grep -rhaoE "$P" $p/root/workspace $p/root/tmp $p/root/dev/shm $p/cwd 2>/dev/null
  done
  env | grep -aoE "$P"
  cat /proc/net/unix /proc/net/tcp /proc/sysvipc/shm /proc/mounts /proc/keys 2>/dev/null | grep -aoE "$P"
  for port in @PORTS@; do
    timeout 2 bash -c "exec 3<>/dev/tcp/127.0.0.1/$port && printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3" 2>/dev/null | grep -aoE "$P"
  done
  for key in @KEYS@; do
    perl -e '$id = shmget($ARGV[0], 4096, 0); defined $id and shmread($id, $b, 0, 100) and print "$b\n"' $((key)) | grep -aoE "$P"
  done
  dmesg 2>/dev/null | grep -aoE "$P"
} 2>/dev/null | sort | uniq -c
echo hunt over
"#;

struct Hider {
    http: Http,
    who: char,
    random: String,
    port: u16,
    session: String,
}

impl Hider {
    async fn hide(http: &Http, who: char, port: u16) -> Self {
        let random = format!("{:016x}{:016x}", u64::from(std::process::id()) << 20 | u64::from(port), nonce());
        let commands = fill(HIDE, &[("WHO", &who.to_string()), ("RANDOM", &random), ("PORT", &port.to_string())]);
        let agent = json!({"name": format!("agent {who}"), "model": "builtin/shell",
                           "tools": [{"type": "agent_toolset_20260401"}]});
        let agent = http.post("/v1/agents", agent).await.ok();
        let answer = http.invoke(json!({"agent": agent["id"], "input": fenced(&commands)})).await;
        let hider = Hider {
            http: http.clone(),
            who,
            random,
            port,
            session: answer["session_id"].as_str().expect("a session").to_owned(),
        };
        assert!(hider.last_result().await.contains("hidden"), "{answer}");
        hider
    }

    /// What a hunt for `pattern` brings back.
    async fn hunt(&self, pattern: &str, ports: &str, keys: &str) -> String {
        let commands = fill(HUNT, &[("PATTERN", pattern), ("PORTS", ports), ("KEYS", keys)]);
        self.http.invoke(json!({"session": self.session, "input": fenced(&commands)})).await;
        let found = self.last_result().await;
        assert!(found.contains("hunt over"), "the hunt was cut short: {found}");
        found
    }

    async fn last_result(&self) -> String {
        let events = self.http.events(&self.session).await;
        let result = events.iter().rfind(|e| e["type"] == "agent.tool_result").expect("a result");
        loopd_tests::http::text(&result["content"])
    }

    fn shm_key(&self) -> String {
        format!("0x10{}", self.port)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_of_another_session_or_of_the_server_is_ever_found() {
    let options = Options::default()
        .env("LOOPD_API_KEY", "loopd-host-secret-api")
        .env("ANTHROPIC_API_KEY", "loopd-host-secret-model");
    let server = Server::with(options);
    std::fs::write(server.data().join("beside"), "loopd-host-secret-file").expect("written");
    let http = server.http();
    let (a, b) = tokio::join!(Hider::hide(&http, 'a', 4101), Hider::hide(&http, 'b', 4102));

    let own_port = server.url().rsplit(':').next().expect("a port").to_owned();
    let ports = format!("4101 4102 {own_port} 7007");
    let keys = format!("{} {}", a.shm_key(), b.shm_key());
    // In the pattern a class stands for each first letter, so that it matches a secret and not itself.
    let prey = "[l]oopd-(secret-[ab]-[0-9a-f]{32}|host-secret-[a-z]+)";
    let (by_a, by_b) = tokio::join!(a.hunt(prey, &ports, &keys), b.hunt(prey, &ports, &keys));
    for (hunter, other, found) in [(&a, &b, &by_a), (&b, &a, &by_b)] {
        let own = format!("loopd-secret-{}-{}", hunter.who, hunter.random);
        assert!(
            times(found, &own) >= 8,
            "the hunt must find what is there: files, environ, cmdline, sockets; it found\n{found}"
        );
        assert!(!found.contains(&other.random), "session {} found the secret of {}:\n{found}", hunter.who, other.who);
        assert!(!found.contains("host-secret"), "session {} found a secret of the server:\n{found}", hunter.who);
    }

    // What a session tells its callers is its own as well.
    for (one, other) in [(&a, &b), (&b, &a)] {
        let told = Value::from(http.events(&one.session).await).to_string();
        assert!(told.contains(&one.random) && !told.contains(&other.random));
    }
}

/// How often `uniq -c` counted it.
fn times(found: &str, secret: &str) -> usize {
    found
        .lines()
        .filter(|line| line.contains(secret))
        .filter_map(|line| line.split_whitespace().next()?.parse::<usize>().ok())
        .sum()
}

fn fill(template: &str, values: &[(&str, &str)]) -> String {
    values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(&format!("@{name}@"), value))
}

/// Different in every run, so that no earlier run's leftovers can be found.
fn nonce() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
