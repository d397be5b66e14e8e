//! The way out: a connection through loopd's egress proxy, passed on or opened, beside a direct one and beside mitmproxy at the same
//! work; and the whole way from inside a room.

use crate::outlet;
use crate::place::Place;
use crate::report::{Report, cells, ratio, short};
use crate::site::Site;
use crate::stats::Samples;
use crate::way::Way;
use anyhow::{Context, Result};
use std::path::Path;
use tokio::time::Instant;

/// One connection of each in a round.
const CONNECTION_ROUNDS: usize = 200;
const WARM_UP: usize = 5;
/// So many requests over one connection of each in a round.
const REQUEST_ROUNDS: usize = 20;
const REQUESTS: usize = 100;
/// One large body in each direction in a round.
const LARGE_ROUNDS: usize = 5;
const LARGE_BYTES: usize = 256 << 20;
const SMALL_BYTES: usize = 64;

/// In the order of the tables; a peer has the place of loopd's way that it is compared with, and two more.
const DIRECT: usize = 0;
const OURS: [usize; 2] = [1, 2];
const PEERS: [usize; 2] = [3, 4];

pub async fn run(place: &Place) -> Result<Report> {
    let work = tempfile::tempdir_in(&place.work)?;
    let site = Site::start(work.path()).await?;
    place.tools.install_mitmproxy().await?;
    let ways = ways(place, &site, work.path()).await?;
    let mut report = Report::new("egress");
    connections(&mut report, &ways).await?;
    requests(&mut report, &ways).await?;
    large(&mut report, &ways, "down", |way| Box::pin(download(way))).await?;
    large(&mut report, &ways, "up", |way| Box::pin(upload(way))).await?;
    drop(ways);
    outlet::run(&mut report, place, &site, work.path()).await?;
    Ok(report)
}

async fn ways(place: &Place, site: &Site, work: &Path) -> Result<[Way; 5]> {
    let at = |name: &str| work.join(name);
    Ok([
        Way::direct("direct", site)?,
        Way::loopd("**loopd**, passed on", place, site, &at("loopd-blind"), false).await?,
        Way::loopd("**loopd**, opened, credential placed", place, site, &at("loopd-opened"), true).await?,
        Way::mitmproxy("mitmproxy, passed on", place, site, &at("mitmproxy-blind"), false).await?,
        Way::mitmproxy("mitmproxy, opened, header replaced", place, site, &at("mitmproxy-opened"), true).await?,
    ])
}

async fn connections(report: &mut Report, ways: &[Way; 5]) -> Result<()> {
    let samples = in_turn(ways, WARM_UP, CONNECTION_ROUNDS, async |way| {
        let begun = Instant::now();
        way.connect().await?.download(SMALL_BYTES).await?;
        Ok(begun.elapsed().as_secs_f64() * 1e3)
    })
    .await?;
    report.say(&format!(
        "A small request over a connection of its own, from connecting to the end of the answer; {CONNECTION_ROUNDS} rounds, one of each in turn, ms:"
    ));
    table(report, ways, &samples, &[]);
    Ok(())
}

async fn requests(report: &mut Report, ways: &[Way; 5]) -> Result<()> {
    let samples = in_turn(ways, 1, REQUEST_ROUNDS, async |way| {
        let mut connection = way.connect().await?;
        connection.download(SMALL_BYTES).await?;
        let begun = Instant::now();
        for _ in 0..REQUESTS {
            connection.download(SMALL_BYTES).await?;
        }
        Ok(begun.elapsed().as_secs_f64() * 1e3 / REQUESTS as f64)
    })
    .await?;
    report.say(&format!(
        "A small request over a connection that is there; {REQUEST_ROUNDS} rounds, {REQUESTS} one after another of each in turn, ms a request:"
    ));
    table(report, ways, &samples, &[]);
    Ok(())
}

type Work<'a> = std::pin::Pin<Box<dyn Future<Output = Result<()>> + 'a>>;

async fn download(way: &Way) -> Result<()> {
    way.connect().await?.download(LARGE_BYTES).await
}

async fn upload(way: &Way) -> Result<()> {
    way.connect().await?.upload(LARGE_BYTES).await
}

async fn large(
    report: &mut Report,
    ways: &[Way; 5],
    direction: &str,
    work: impl for<'a> Fn(&'a Way) -> Work<'a>,
) -> Result<()> {
    let megabytes = (LARGE_BYTES >> 20) as f64;
    let before = processors(ways)?;
    let samples = in_turn(ways, 1, LARGE_ROUNDS, async |way| {
        let begun = Instant::now();
        work(way).await?;
        Ok(megabytes / begun.elapsed().as_secs_f64())
    })
    .await?;
    // The round to warm up has cost as much.
    let moved = megabytes * (LARGE_ROUNDS + 1) as f64;
    let used = before.iter().zip(processors(ways)?).map(|(before, after)| {
        let seconds = after.zip(*before).map(|(after, before)| after - before);
        seconds.map_or_else(|| "none".to_owned(), |seconds| short(seconds * 1e3 / moved))
    });
    report.say(&format!(
        "{megabytes} MB {direction} over a connection of its own; {LARGE_ROUNDS} rounds, one of each in turn, MB a second, and the processor time of the proxy, ms a MB:"
    ));
    table(report, ways, &samples, &used.collect::<Vec<_>>());
    Ok(())
}

fn processors(ways: &[Way; 5]) -> Result<Vec<Option<f64>>> {
    ways.iter().map(Way::processor).collect()
}

/// Each round takes every way once and begins with another one.
async fn in_turn(
    ways: &[Way; 5],
    warm_up: usize,
    rounds: usize,
    measure: impl AsyncFn(&Way) -> Result<f64>,
) -> Result<[Samples; 5]> {
    let mut samples = <[Samples; 5]>::default();
    for round in 0..warm_up + rounds {
        for offset in 0..ways.len() {
            let index = (round + offset) % ways.len();
            let way = &ways[index];
            let value = measure(way).await.with_context(|| way.name.to_owned())?;
            if round >= warm_up {
                samples[index].push(value);
            }
        }
    }
    Ok(samples)
}

fn table(report: &mut Report, ways: &[Way; 5], samples: &[Samples; 5], used: &[String]) {
    let ours = |index: usize| PEERS.iter().position(|peer| *peer == index).map(|n| OURS[n]);
    let mut rows = Vec::new();
    for (index, way) in ways.iter().enumerate() {
        let mut row = vec![way.name.to_owned()];
        row.extend(cells(&samples[index]));
        row.push(ratio(&samples[index], &samples[DIRECT]));
        row.push(ours(index).map_or_else(String::new, |ours| ratio(&samples[ours], &samples[index])));
        row.extend(used.get(index).cloned());
        rows.push(row);
    }
    let head = ["way", "p50", "p99", "p10 to p90", "this / direct", "loopd at the same work / this", "processor"];
    report.table(&head[..head.len() - usize::from(used.is_empty())], &rows);
}
