//! QEMU's own protocol: a line of JSON for each order and answer, and lines nobody asked for between them.
//!
//! What comes is a stranger's: lines, and the time until an answer, have their bounds.

use super::super::vmm::VmmError;
use loopd_domain::limits::{QMP_ANSWER_MS, QMP_LINE_BYTES_MAX};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
use serde_json::{Value, json};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Interest};
use tokio::net::UnixStream;

pub(super) struct Qmp {
    stream: BufReader<UnixStream>,
    /// Of everything here: what an error says was being done.
    doing: &'static str,
    /// How long an answer may take.
    patience: Duration,
    /// An answer did not come in time. It may come yet, and would be taken for that to another order.
    is_lost: bool,
}

impl Qmp {
    /// Waits for the greeting, and answers it.
    pub(super) async fn open(stream: UnixStream, doing: &'static str) -> Result<Self, VmmError> {
        let patience = Duration::from_millis(QMP_ANSWER_MS);
        let mut qmp = Qmp { stream: BufReader::new(stream), doing, patience, is_lost: false };
        let greeting = qmp.within(Self::line).await?;
        if greeting.get("QMP").is_none() {
            return Err(qmp.failed("QEMU does not greet".to_owned()));
        }
        qmp.order("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// What comes without being asked for.
    pub(super) fn into_stream(self) -> UnixStream {
        self.stream.into_inner()
    }

    pub(super) async fn order(&mut self, order: &str, arguments: Value) -> Result<Value, VmmError> {
        self.order_with(order, arguments, None).await
    }

    /// Gives QEMU a descriptor, to be named so.
    pub(super) async fn give(&mut self, name: &str, descriptor: BorrowedFd<'_>) -> Result<(), VmmError> {
        self.order_with("getfd", json!({ "fdname": name }), Some(descriptor)).await.map(drop)
    }

    async fn order_with(
        &mut self,
        order: &str,
        arguments: Value,
        descriptor: Option<BorrowedFd<'_>>,
    ) -> Result<Value, VmmError> {
        let mut whole = json!({ "execute": order });
        if !arguments.is_null() {
            whole["arguments"] = arguments;
        }
        let line = format!("{whole}\n").into_bytes();
        self.within(async |qmp| {
            qmp.send(&line, descriptor).await?;
            loop {
                let mut answer = qmp.line().await?;
                if let Some(result) = answer.get_mut("return") {
                    return Ok(Ok(result.take()));
                }
                if let Some(error) = answer.get("error") {
                    let said = error.get("desc").and_then(Value::as_str).unwrap_or("no reason");
                    return Ok(Err(format!("QEMU refuses `{order}`: {said}")));
                }
                // An event. So many that no answer comes are ended by the deadline.
            }
        })
        .await?
        .map_err(|reason| self.failed(reason))
    }

    async fn within<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> io::Result<T>) -> Result<T, VmmError> {
        let (doing, patience) = (self.doing, self.patience);
        let failed = |reason| VmmError::Failed { doing, reason };
        if self.is_lost {
            return Err(failed("QEMU did not answer before".to_owned()));
        }
        match tokio::time::timeout(patience, work(self)).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(fault)) => Err(failed(format!("talking to QEMU: {fault}"))),
            Err(_) => {
                self.is_lost = true;
                Err(failed(format!("QEMU does not answer within {} ms", patience.as_millis())))
            }
        }
    }

    async fn send(&mut self, mut line: &[u8], mut descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
        while !line.is_empty() {
            let stream = self.stream.get_ref();
            stream.writable().await?;
            let sent = stream.try_io(Interest::WRITABLE, || {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut beside = SendAncillaryBuffer::new(&mut space);
                if let Some(one) = &descriptor {
                    beside.push(SendAncillaryMessage::ScmRights(std::slice::from_ref(one)));
                }
                let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
                Ok(rustix::net::sendmsg(stream.as_fd(), &[IoSlice::new(line)], &mut beside, flags)?)
            });
            match sent {
                Ok(count) => {
                    line = &line[count..];
                    descriptor = None;
                }
                Err(fault) if fault.kind() == io::ErrorKind::WouldBlock => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(())
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        let read = (&mut self.stream).take(QMP_LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() != Some(&b'\n') {
            return Err(io::Error::other(format!("a line of more than {QMP_LINE_BYTES_MAX} bytes, or cut off")));
        }
        serde_json::from_slice(&line).map_err(io::Error::other)
    }

    pub(super) fn failed(&self, reason: String) -> VmmError {
        VmmError::Failed { doing: self.doing, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;

    const GREETING: &[u8] = b"{\"QMP\": {\"version\": {}}}\n{\"return\": {}}\n";

    async fn opened() -> (Qmp, UnixStream) {
        let (here, mut there) = UnixStream::pair().unwrap();
        there.write_all(GREETING).await.unwrap();
        (Qmp::open(here, "testing").await.unwrap(), there)
    }

    #[tokio::test]
    async fn an_answer_is_found_among_events_and_a_refusal_is_told() {
        let (mut qmp, mut there) = opened().await;
        there.write_all(b"{\"event\": \"STOP\"}\n{\"return\": {\"status\": \"active\"}}\n").await.unwrap();
        assert_eq!(qmp.order("query-migrate", Value::Null).await.unwrap()["status"], "active");
        there.write_all(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"not now\"}}\n").await.unwrap();
        let refused = qmp.order("stop", Value::Null).await.unwrap_err().to_string();
        assert_eq!(refused, "testing: QEMU refuses `stop`: not now");
    }

    #[tokio::test]
    async fn a_line_without_end_is_cut_off() {
        let (mut qmp, mut there) = opened().await;
        let flood = tokio::spawn(async move {
            let chunk = [b' '; 4096];
            while there.write_all(&chunk).await.is_ok() {}
        });
        let refused = qmp.order("stop", Value::Null).await.unwrap_err().to_string();
        assert!(refused.contains("a line of more than"), "{refused}");
        drop(qmp);
        flood.await.unwrap();
    }

    #[tokio::test]
    async fn one_who_says_nothing_is_not_waited_for_for_ever() {
        let (mut qmp, _there) = opened().await;
        qmp.patience = Duration::from_millis(10);
        let refused = qmp.order("stop", Value::Null).await.unwrap_err().to_string();
        assert!(refused.contains("does not answer within"), "{refused}");
        let (here, there) = UnixStream::pair().unwrap();
        drop(there);
        assert!(Qmp::open(here, "testing").await.is_err());
    }

    #[tokio::test]
    async fn a_descriptor_goes_with_its_order() {
        let (mut qmp, there) = opened().await;
        let (one, two) = rustix::pipe::pipe().unwrap();
        let there = there.into_std().unwrap();
        there.set_nonblocking(false).unwrap();
        let peer = std::thread::spawn(move || {
            let mut got = Vec::new();
            // The answer to the greeting came before it, in a packet of its own.
            while got.is_empty() {
                let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                let mut beside = rustix::net::RecvAncillaryBuffer::new(&mut space);
                let mut line = [0; 256];
                let mut into = [io::IoSliceMut::new(&mut line)];
                rustix::net::recvmsg(&there, &mut into, &mut beside, rustix::net::RecvFlags::empty()).unwrap();
                for message in beside.drain() {
                    if let rustix::net::RecvAncillaryMessage::ScmRights(descriptors) = message {
                        got.extend(descriptors);
                    }
                }
            }
            io::Write::write_all(&mut &there, b"{\"return\": {}}\n").unwrap();
            got
        });
        qmp.give("state", two.as_fd()).await.unwrap();
        let got = peer.join().unwrap();
        rustix::io::write(&got[0], b"!").unwrap();
        let mut byte = [0];
        assert_eq!(rustix::io::read(&one, &mut byte), Ok(1));
    }
}
