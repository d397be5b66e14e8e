//! Guests that break the rules, played in this process on the link of a VMM that only pretends.

use super::support::Ground;
use async_trait::async_trait;
use loopd_protocol::codec::{Decoder, encode};
use loopd_protocol::guest::{FromGuest, GuestState, ToGuest, VERSION};
use loopd_protocol::link::{Event, Link, Side, StreamId, StreamKind, Token};
use loopd_sandbox::microvm::vmm::{Begin, Machine, Order, Vmm, VmmError};
use loopd_sandbox::{Accelerator, RoomExit, Sandbox};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;

/// What a guest does when its cell is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Vice {
    /// Nothing: it goes on, and answers pings.
    None,
    UnknownFrame,
    NoMessage,
    /// As much as the link lets it say, for as long as it is let.
    Flood,
}

/// Its machines are processes that sleep.
struct Pretence(Vice);

#[async_trait]
impl Vmm for Pretence {
    fn version(&self) -> &str {
        "pretence 1"
    }

    fn accelerator(&self) -> Accelerator {
        Accelerator::Emulation
    }

    async fn start(&self, order: Order, _: &Begin) -> Result<Machine, VmmError> {
        let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
        let pid = child.id();
        let handle = rustix::process::Pid::from_child(&child);
        let process = rustix::process::pidfd_open(handle, rustix::process::PidfdFlags::empty()).unwrap();
        let (sender, ended) = watch::channel(None);
        std::thread::spawn(move || {
            child.wait().unwrap();
            sender.send_replace(Some(String::new()));
        });
        let (link, vice) = (UnixListener::from_std(order.link.into()).unwrap(), self.0);
        tokio::spawn(async move {
            guest(link, vice).await;
            drop(order.control);
        });
        Ok(Machine { process: Arc::new(process), pid, ended, memory: None })
    }

    async fn freeze(&self, machine: Machine, _: UnixStream, into: PathBuf) -> Result<(), VmmError> {
        rustix::process::pidfd_send_signal(&machine.process, rustix::process::Signal::KILL).unwrap();
        std::fs::create_dir_all(into).unwrap();
        Ok(())
    }

    async fn suspend(&self, _: &Machine, _: UnixStream, _: PathBuf, _: PathBuf) -> Result<(), VmmError> {
        Err(VmmError::Failed { doing: "pretending", reason: "not that".to_owned() })
    }

    async fn regrow(&self, _: UnixStream, _: u64) -> Result<(), VmmError> {
        Err(VmmError::Failed { doing: "pretending", reason: "not that".to_owned() })
    }

    async fn relink(&self, _: UnixStream, _: OwnedFd) -> Result<(), VmmError> {
        Err(VmmError::Failed { doing: "pretending", reason: "not that".to_owned() })
    }
}

/// Answers as `loopd-guest` does, until its host goes.
async fn guest(listener: UnixListener, vice: Vice) {
    let Ok((mut socket, _)) = listener.accept().await else { return };
    let (mut link, mut decoder, mut control) = (Link::new(Side::Guest), Decoder::default(), None);
    let mut buffer = vec![0; 64 << 10];
    let mut is_flooding = false;
    loop {
        if is_flooding {
            say(&mut link, control, &FromGuest::Log { text: "x".repeat(1_000) });
        }
        while !link.output().is_empty() {
            match socket.write(link.output()).await {
                Ok(sent) => link.sent(sent),
                Err(_) => return,
            }
        }
        let read = match is_flooding {
            true => socket.try_read(&mut buffer).or_else(|fault| match fault.kind() {
                std::io::ErrorKind::WouldBlock => Ok(usize::MAX),
                _ => Err(fault),
            }),
            false => socket.read(&mut buffer).await,
        };
        match read {
            Ok(usize::MAX) => tokio::task::yield_now().await,
            Ok(0) | Err(_) => return,
            Ok(length) => link.push(&buffer[..length]),
        }
        while let Ok(Some(event)) = link.next() {
            match event {
                Event::Opened { id, kind: StreamKind::Control } => {
                    control = Some(id);
                    say(&mut link, control, &FromGuest::Ready { version: VERSION, state: GuestState::Prepared });
                }
                Event::Opened { kind: StreamKind::Cell, .. } => match vice {
                    Vice::None => {}
                    Vice::UnknownFrame => socket.write_all(&[0, 0, 0, 0, 77, 0, 0, 0, 0]).await.unwrap(),
                    Vice::NoMessage => {
                        link.write(control.unwrap(), b"\x05\x00\x00\x00hello");
                    }
                    Vice::Flood => is_flooding = true,
                },
                Event::Data { id, bytes } if Some(id) == control => {
                    link.take(id, bytes.len());
                    decoder.push(&bytes);
                    while let Ok(Some(order)) = decoder.next() {
                        match order {
                            ToGuest::Bind(bind) => {
                                link.set_token(&Token::from_hex(&bind.token).unwrap());
                                say(&mut link, control, &FromGuest::Bound);
                            }
                            ToGuest::Prepare { .. } => say(&mut link, control, &FromGuest::Prepared),
                            ToGuest::Ping { number } => say(&mut link, control, &FromGuest::Pong { number }),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }
}

fn say(link: &mut Link, control: Option<StreamId>, word: &FromGuest) {
    let mut frame = Vec::new();
    encode(word, &mut frame).unwrap();
    if let Some(id) = control {
        link.write(id, &frame);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_breaks_the_rules_of_the_link_costs_its_own_machine() {
    let Some(ground) = Ground::with_test_cell() else { return };
    let subject = ground.subject();
    let sandbox = |vice| ground.with_vmm(Arc::new(Pretence(vice)));
    let honest = sandbox(Vice::None);
    let neighbour = honest.start(&subject.spec()).await.unwrap();
    for (vice, why) in [(Vice::UnknownFrame, "broke a rule"), (Vice::NoMessage, "no message")] {
        let mut room = sandbox(vice).start(&subject.spec()).await.unwrap();
        let machine = room.guard.pid().unwrap();
        let exit = room.exit.wait_for(Option::is_some).await.unwrap().clone();
        assert!(matches!(&exit, Some(RoomExit::Lost(told)) if told.contains(why)), "{vice:?}: {exit:?}");
        assert!(!std::path::Path::new(&format!("/proc/{machine}")).exists(), "{vice:?}");
    }
    // One that only talks too much is let talk, and is ended as any other.
    let flooding = sandbox(Vice::Flood);
    let room = flooding.start(&subject.spec()).await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    let mut exit = room.exit.clone();
    assert!(exit.borrow().is_none());
    room.guard.kill();
    assert_eq!(exit.wait_for(Option::is_some).await.unwrap().clone(), Some(RoomExit::Signal(9)));
    assert!(neighbour.exit.borrow().is_none(), "the neighbour goes on");
}
