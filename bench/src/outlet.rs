//! The whole way from inside a room: stub, outlet and egress proxy of a whole server, beside the same program on the host.

use crate::fake::Fake;
use crate::loopd::{Loopd, check_turn};
use crate::ours::session_id;
use crate::place::Place;
use crate::report::{Report, cells, ratio};
use crate::site::{ROOM_NAME, SECRET, Site};
use crate::stats::Samples;
use crate::tools;
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::path::Path;
use tokio::process::Command;

const ROUNDS: usize = 10;
const REQUESTS: usize = 20;
const LARGE_BYTES: usize = 128 << 20;
const VARIABLE: &str = "SITE_KEY";

/// What `curl` says of one run of the script.
#[derive(Debug, Default)]
struct Said {
    /// Milliseconds of each small request.
    small: Samples,
    /// MB a second.
    down: f64,
    up: f64,
}

#[derive(Default)]
struct Taken {
    small: Samples,
    down: Samples,
    up: Samples,
}

pub async fn run(report: &mut Report, place: &Place, site: &Site, work: &Path) -> Result<()> {
    let fake = Fake::start().await?;
    let config = work.join("outlet.toml");
    std::fs::write(&config, configuration(site))?;
    let config = config.to_str().context("a path that is no text")?;
    let loopd = Loopd::start_with(&place.loopd, &work.join("outlet"), &fake, &["--config", config]).await?;
    let vault = vault(&loopd).await?;
    let certificate = site.certificate_file.display();
    let port = site.address().port();
    let on_host = script(site, "blind", &format!("--cacert {certificate} --resolve {ROOM_NAME}:{port}:127.0.0.1"));
    let written = format!("cat > site.pem <<'PEM'\n{}PEM\n", site.certificate);
    let blind = format!("{written}{}", script(site, "blind", "--cacert site.pem"));
    // The room trusts loopd's authority as it is, but by a list of all authorities, which `curl` would read each time.
    let opened = script(site, "opened", "--cacert \"$NODE_EXTRA_CA_CERTS\"");
    let mut taken = <[Taken; 3]>::default();
    for round in 0..=ROUNDS {
        for offset in 0..taken.len() {
            let index = (round + offset) % taken.len();
            let said = match index {
                0 => tools::run(Command::new("bash").args(["-c", &on_host]).current_dir(work)).await?,
                1 => in_room(&loopd, site, &blind, &json!([])).await?,
                _ => in_room(&loopd, site, &opened, &json!([vault])).await?,
            };
            let said = read(&said)?;
            // The first is for everybody to warm up.
            if round > 0 {
                taken[index].small.push(said.small.p50());
                taken[index].down.push(said.down);
                taken[index].up.push(said.up);
            }
        }
    }
    loopd.stop().await?;
    tell(report, &taken);
    Ok(())
}

fn configuration(site: &Site) -> String {
    let (port, root) = (site.address().port(), site.certificate_file.display());
    format!(
        "[network]\nallow_addresses = [\"{ROOM_NAME}:{port}\"]\nextra_roots = \"{root}\"\n\
         hosts = {{ \"{ROOM_NAME}\" = \"127.0.0.1\" }}\n"
    )
}

async fn vault(loopd: &Loopd) -> Result<Value> {
    let vault = loopd.post("/v1/vaults", &json!({"display_name": "benchmark"})).await?["id"].clone();
    let path = format!("/v1/vaults/{}/credentials", vault.as_str().context("a vault has an id")?);
    let networking = json!({"type": "limited", "allowed_hosts": [ROOM_NAME]});
    let auth = json!({"type": "environment_variable", "secret_name": VARIABLE, "secret_value": SECRET, "networking": networking});
    loopd.post(&path, &json!({"auth": auth})).await?;
    Ok(vault)
}

/// One `curl` for each request: it prints what it measured itself, so its start is not in the figures. The first request of each
/// run starts the room's stub and is not printed.
fn script(site: &Site, key: &str, more: &str) -> String {
    let base = format!("https://{ROOM_NAME}:{}/{key}", site.address().port());
    format!(
        "visit() {{ curl -sS --fail --http1.1 --noproxy '*' {more} -H \"authorization: Bearer ${{{VARIABLE}:-none}}\" -o /dev/null \"$@\"; }}\n\
         visit {base}/bytes/64 || exit 1\n\
         for i in $(seq {REQUESTS}); do visit -w 'small %{{time_total}}\\n' {base}/bytes/64 || exit 1; done\n\
         visit -w 'down %{{speed_download}}\\n' {base}/bytes/{LARGE_BYTES} || exit 1\n\
         truncate -s {LARGE_BYTES} large\n\
         visit -w 'up %{{speed_upload}}\\n' -H 'Expect:' -T large {base}/swallow || exit 1\n\
         rm large\n"
    )
}

/// Of a new session.
async fn in_room(loopd: &Loopd, site: &Site, command: &str, vaults: &Value) -> Result<String> {
    let step = json!({"tools": [{"name": "bash", "input": {"command": command}}]});
    let networking = json!({"type": "limited", "allowed_hosts": [ROOM_NAME], "ports": [443, site.address().port()]});
    let mut body = json!({"model": "builtin/script", "tools": ["bash"], "input": "go"});
    body["system"] = json!(json!({"steps": [step], "then": "done"}).to_string());
    body["environment"] = json!({"networking": networking});
    body["vaults"] = vaults.clone();
    let id = session_id(&loopd.invoke(&body).await?)?;
    let events = loopd.events(&id).await?;
    let result = events.iter().find(|event| event.kind == "agent.tool_result").context("no result")?;
    let text = result.content[0]["text"].as_str().unwrap_or_default().to_owned();
    check_turn(&events, 1).with_context(|| text.clone())?;
    loopd.delete(&id).await?;
    Ok(text)
}

fn read(text: &str) -> Result<Said> {
    let mut said = Said::default();
    let mut count = 0;
    for line in text.lines() {
        let value = |text: &str| text.parse::<f64>().with_context(|| format!("`{line}`"));
        match line.split_once(' ') {
            Some(("small", seconds)) => {
                said.small.push(value(seconds)? * 1e3);
                count += 1;
            }
            Some(("down", bytes)) => said.down = value(bytes)? / f64::from(1 << 20),
            Some(("up", bytes)) => said.up = value(bytes)? / f64::from(1 << 20),
            _ => {}
        }
    }
    let is_whole = count == REQUESTS && said.down > 0.0 && said.up > 0.0;
    ensure!(is_whole, "the script did not say all that it should: {text}");
    Ok(said)
}

fn tell(report: &mut Report, taken: &[Taken; 3]) {
    let names = [
        "`curl` on the host, direct",
        "`curl` in a room of **loopd**, passed on",
        "`curl` in a room of **loopd**, opened, credential placed",
    ];
    let mut table = |what: &str, of: fn(&Taken) -> &Samples| {
        report.say(what);
        let rows = taken
            .iter()
            .zip(names)
            .map(|(way, name)| [&[name.to_owned()][..], &cells(of(way)), &[ratio(of(way), of(&taken[0]))]].concat());
        report.table(&["the whole way", "p50", "p99", "p10 to p90", "this / direct"], &rows.collect::<Vec<_>>());
    };
    table(
        &format!(
            "From inside a room, through its stub, its outlet and the server, by a program that knows of no proxy; {ROUNDS} rounds, each a new \
             session. A small request over a connection of its own, the median of {REQUESTS} in each round, ms:"
        ),
        |way| &way.small,
    );
    let megabytes = LARGE_BYTES >> 20;
    table(&format!("{megabytes} MB down, MB a second:"), |way| &way.down);
    table(&format!("{megabytes} MB up, MB a second:"), |way| &way.up);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_curl_says_is_read_and_nothing_may_be_missing() {
        let small = "small 0.004\n".repeat(REQUESTS);
        let said = read(&format!("{small}down 104857600\nup 52428800\n")).unwrap();
        assert_eq!((said.small.p50(), said.down, said.up), (4.0, 100.0, 50.0));
        assert!(read(&format!("{small}down 104857600\n")).is_err());
        assert!(read("small 0.004\ndown 1\nup 1\n").is_err());
        assert!(read(&format!("{small}down fast\nup 1\n")).is_err());
    }
}
