//! What is said with a guest about its machine before somebody attends to it: an order, and the answer to it.

use super::link::Control;
use super::secrets;
use crate::SandboxError;
use loopd_domain::limits::MACHINE_ANSWER_MS;
use loopd_protocol::guest::{FromGuest, GuestState, ToGuest, VERSION};
use std::time::Duration;
use tokio::time::Instant;

const NO_ANSWER: &str = "no answer in";
const ANSWER: Duration = Duration::from_millis(MACHINE_ANSWER_MS);

/// Says something and waits for what it is answered with.
pub(super) async fn ask<T>(
    control: &mut Control,
    order: ToGuest,
    doing: &'static str,
    wanted: impl FnMut(&FromGuest) -> Option<T>,
) -> Result<T, SandboxError> {
    ask_within(control, ANSWER, order, doing, wanted).await
}

pub(super) async fn ask_within<T>(
    control: &mut Control,
    wait: Duration,
    order: ToGuest,
    doing: &'static str,
    wanted: impl FnMut(&FromGuest) -> Option<T>,
) -> Result<T, SandboxError> {
    if control.to.send(order).await.is_err() {
        return Err(failed(doing, "its link is over"));
    }
    hear(control, wait, doing, wanted).await
}

/// What the guest says first, at each reset.
pub(super) async fn ready(control: &mut Control) -> Result<GuestState, SandboxError> {
    const DOING: &str = "coming up";
    let (version, state) = hear(control, ANSWER, DOING, |said| match said {
        FromGuest::Ready { version, state } => Some((*version, *state)),
        _ => None,
    })
    .await?;
    match version {
        VERSION => Ok(state),
        other => Err(failed(DOING, &format!("its guest speaks version {other}; accepted: {VERSION}"))),
    }
}

/// Tells a machine that did not run for a while what it missed: the time, and randomness. Other than 0, `disk_bytes` is what its disk has now.
pub(super) async fn wake(control: &mut Control, doing: &'static str, disk_bytes: u64) -> Result<(), SandboxError> {
    let wake = ToGuest::Wake { entropy: secrets::entropy()?, now_ns: secrets::now_ns(), disk_bytes };
    ask(control, wake, doing, |said| matches!(said, FromGuest::Awake).then_some(())).await
}

async fn hear<T>(
    control: &mut Control,
    wait: Duration,
    doing: &'static str,
    mut wanted: impl FnMut(&FromGuest) -> Option<T>,
) -> Result<T, SandboxError> {
    let deadline = Instant::now() + wait;
    loop {
        let said = tokio::time::timeout_at(deadline, control.from.recv()).await;
        match said.map_err(|_| failed(doing, &format!("{NO_ANSWER} {wait:?}")))? {
            None => return Err(failed(doing, "its link is over")),
            Some(FromGuest::Failed { doing: what, reason }) => return Err(failed(doing, &format!("{what}: {reason}"))),
            Some(FromGuest::Ended { end }) => return Err(failed(doing, &format!("it ended: {end:?}"))),
            Some(FromGuest::Log { text }) => tracing::info!(%text, "a guest says"),
            Some(said) => {
                if let Some(answer) = wanted(&said) {
                    return Ok(answer);
                }
            }
        }
    }
}

/// What a guest said can be told from its saying nothing: that it cannot do something it will say again.
pub(super) fn is_silence(fault: &SandboxError) -> bool {
    matches!(fault, SandboxError::Machine(why) if why.contains(NO_ANSWER))
}

pub(super) fn failed(doing: &str, why: &str) -> SandboxError {
    SandboxError::Machine(format!("{doing}: {why}"))
}
