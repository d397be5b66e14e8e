//! The stream of messages about the machine, and the questions for a sign of life in it.

use super::shared::Shared;
use super::stream::LinkStream;
use super::{Control, LinkDead};
use loopd_domain::limits::{LINK_MESSAGE_BYTES_MAX, LINK_MESSAGES_MAX};
use loopd_protocol::codec::{Decoder, encode};
use loopd_protocol::guest::{FromGuest, ToGuest};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};

pub(super) fn serve(stream: LinkStream, shared: Arc<Shared>, ask: Duration) -> Control {
    let (to, orders) = mpsc::channel(LINK_MESSAGES_MAX);
    let (news, from) = mpsc::channel(LINK_MESSAGES_MAX);
    let (reader, writer) = tokio::io::split(stream);
    let other = Arc::clone(&shared);
    tokio::spawn(async move {
        tokio::select! {
            why = write(writer, orders, ask) => other.die(why),
            () = other.is_dead() => {}
        }
    });
    tokio::spawn(async move {
        let why = read(reader, &news, &shared).await;
        shared.die(why);
    });
    Control { to, from }
}

/// Answers why there will be no more. That nobody has anything to say any more does not end it.
async fn write(mut stream: WriteHalf<LinkStream>, mut orders: mpsc::Receiver<ToGuest>, ask: Duration) -> LinkDead {
    let mut asking = tokio::time::interval_at(Instant::now() + ask, ask);
    asking.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut bytes) = (0, Vec::new());
    loop {
        let message = tokio::select! {
            Some(order) = orders.recv() => order,
            _ = asking.tick() => {
                number += 1;
                ToGuest::Ping { number }
            }
        };
        bytes.clear();
        if let Err(fault) = encode(&message, &mut bytes) {
            return LinkDead::Unsayable(fault.to_string());
        }
        if let Err(fault) = stream.write_all(&bytes).await {
            return LinkDead::Nonsense(format!("its messages end: {fault}"));
        }
    }
}

/// Answers why there will be no more.
async fn read(mut stream: ReadHalf<LinkStream>, news: &mpsc::Sender<FromGuest>, shared: &Shared) -> LinkDead {
    let mut decoder = Decoder::default();
    loop {
        let message = match next(&mut stream, &mut decoder).await {
            Ok(message) => message,
            Err(why) => return why,
        };
        if let FromGuest::Pong { .. } = message {
            continue;
        }
        match news.try_send(message) {
            // Nobody wants to know.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(message)) => {
                shared.hold(true);
                let sent = news.send(message).await;
                shared.hold(false);
                drop(sent);
            }
        }
    }
}

async fn next(stream: &mut ReadHalf<LinkStream>, decoder: &mut Decoder) -> Result<FromGuest, LinkDead> {
    let over = |fault: std::io::Error| LinkDead::Nonsense(format!("its messages end: {fault}"));
    let mut head = [0; 4];
    stream.read_exact(&mut head).await.map_err(over)?;
    let length = u32::from_le_bytes(head) as usize;
    if length > LINK_MESSAGE_BYTES_MAX {
        let told = format!("{length} bytes; accepted: up to {LINK_MESSAGE_BYTES_MAX}");
        return Err(LinkDead::Nonsense(told));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.map_err(over)?;
    decoder.push(&head);
    decoder.push(&body);
    let message = decoder.next().map_err(|fault| LinkDead::Nonsense(fault.to_string()))?;
    message.ok_or_else(|| LinkDead::Nonsense("half a message".to_owned()))
}
