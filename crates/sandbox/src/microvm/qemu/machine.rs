//! A machine's process from without: when it ends, and what was last heard of it.

#![allow(unsafe_code)]

use loopd_domain::limits::MACHINE_LAST_WORDS_BYTES_MAX;
use rustix::io::Errno;
use rustix::process::Signal;
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::UnixStream;
use tokio::net::unix::pipe;
use tokio::sync::{oneshot, watch};

/// Between two looks at what a machine has said.
const BETWEEN_WORDS: Duration = Duration::from_millis(20);

/// How a kernel begins to say that it cannot go on.
const PANIC: &str = "Kernel panic - not syncing";

/// What a machine says besides its link, as far as this server hears it.
pub(super) struct Voices {
    pub console: UnixStream,
    pub errors: pipe::Receiver,
    /// The monitor of its beginning, once there is nothing more to ask: QEMU says on it why a machine shuts down.
    pub monitor: oneshot::Receiver<UnixStream>,
}

/// Watches a machine until it ends, which it may do without whoever started it.
pub(super) fn watch(process: Arc<OwnedFd>, voices: Option<Voices>) -> watch::Receiver<Option<String>> {
    let (tell, ended) = watch::channel(None);
    tokio::spawn(async move {
        let last = match voices {
            Some(voices) => listen(&process, voices).await,
            None => end(&process).await.map(|()| String::new()),
        };
        let last = last.unwrap_or_else(|fault| format!("lost sight of it: {fault}"));
        tell.send_replace(Some(last));
    });
    ended
}

/// Waits for the end of a process.
pub(super) async fn end(process: &OwnedFd) -> io::Result<()> {
    // One descriptor can be waited on but once.
    let own = process.try_clone()?;
    // SAFETY: an `OwnedFd` is open and one and the same descriptor for as long as it lives; nobody takes it out of there.
    let waited = unsafe { AsyncFd::register_with_interest(own, Interest::READABLE) }?;
    let mut ready = waited.readable().await?;
    // Once ended it stays so.
    ready.retain_ready();
    Ok(())
}

/// Ends a machine. One that is gone already cannot be killed, and need not be.
pub(super) fn kill(process: impl AsFd) {
    match rustix::process::pidfd_send_signal(process, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => {}
        Err(errno) => tracing::error!(%errno, "a machine cannot be killed"),
    }
}

async fn listen(process: &OwnedFd, voices: Voices) -> io::Result<String> {
    let Voices { mut console, mut errors, monitor } = voices;
    let (mut on_console, mut on_errors, mut on_monitor) = (Tail::default(), Tail::default(), Tail::default());
    // Each ends with the process: whoever holds the other end is it alone.
    let heard = async {
        tokio::join!(on_console.hear(&mut console), on_errors.hear(&mut errors), async {
            // One that nobody hands over was lost with the beginning.
            if let Ok(mut monitor) = monitor.await {
                on_monitor.hear(&mut monitor).await;
            }
        })
    };
    let (ended, _) = tokio::join!(end(process), heard);
    ended?;
    let said = [("it said", on_errors.text()), ("on its console", on_console.text())];
    let said = said.into_iter().filter(|(_, text)| !text.is_empty()).map(|(what, text)| format!("{what}: {text}"));
    let why = on_console.panic().or_else(|| on_monitor.shutdown().map(str::to_owned));
    Ok(why.into_iter().chain(said).collect::<Vec<_>>().join("; "))
}

/// The last bytes of a stream.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    async fn hear(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        let mut chunk = [0; 16 << 10];
        // A stream that cannot be read has nothing more to say.
        while let Ok(count @ 1..) = stream.read(&mut chunk).await {
            self.add(&chunk[..count]);
            // A guest's serial port speaks byte by byte: one that floods it must not wake this process for each.
            tokio::time::sleep(BETWEEN_WORDS).await;
        }
    }

    fn add(&mut self, bytes: &[u8]) {
        let kept = &bytes[bytes.len().saturating_sub(MACHINE_LAST_WORDS_BYTES_MAX)..];
        let over = (self.0.len() + kept.len()).saturating_sub(MACHINE_LAST_WORDS_BYTES_MAX);
        self.0.drain(..over);
        self.0.extend(kept);
    }

    /// What the guest's kernel crashed of, if it did.
    fn panic(&self) -> Option<String> {
        let text = self.text();
        let at = text.find(PANIC)?;
        let line = text[at..].split(" | ").next()?;
        Some(format!("its guest's kernel crashed: {line}"))
    }

    /// Why the machine shut down, if QEMU said so: a word of the guest's, or an order.
    fn shutdown(&self) -> Option<&'static str> {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        // What is cut off, or is no event of this kind, says nothing.
        let mut events =
            bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        let shutdown = events.rfind(|event| event["event"] == "SHUTDOWN")?;
        Some(match shutdown["data"]["reason"].as_str()? {
            "guest-shutdown" => "its guest switched it off",
            // With `-no-reboot` this ends it.
            "guest-reset" => "its guest restarted it",
            "guest-panic" => "its guest's kernel crashed",
            "host-signal" => "its process was told to end by a signal",
            _ => "it was told to end",
        })
    }

    /// For a log: one line, nothing that moves a terminal's cursor.
    fn text(&self) -> String {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(|line| line.replace(char::is_control, "")).filter(|line| !line.trim().is_empty());
        lines.collect::<Vec<_>>().join(" | ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_words_are_kept() {
        let mut tail = Tail::default();
        for _ in 0..10 {
            tail.add(&[b'x'; MACHINE_LAST_WORDS_BYTES_MAX / 3]);
        }
        tail.add(b"\nlast \x1b[31mwords\r\n");
        assert_eq!(tail.0.len(), MACHINE_LAST_WORDS_BYTES_MAX);
        assert!(tail.text().ends_with("x | last [31mwords"), "{}", tail.text());
        tail.add(&vec![b'y'; 2 * MACHINE_LAST_WORDS_BYTES_MAX]);
        assert_eq!(tail.text().len(), MACHINE_LAST_WORDS_BYTES_MAX);
    }

    #[test]
    fn a_crash_of_the_kernel_is_found_in_what_it_says() {
        let mut tail = Tail::default();
        tail.add(b"[    1.0] fine\n");
        assert_eq!(tail.panic(), None);
        tail.add(b"[    6.7] Kernel panic - not syncing: sysrq triggered crash\r\n[    6.8] Call Trace:\n");
        let told = "its guest's kernel crashed: Kernel panic - not syncing: sysrq triggered crash";
        assert_eq!(tail.panic().as_deref(), Some(told));
    }

    #[test]
    fn the_last_word_of_a_monitor_says_why_a_machine_shut_down() {
        let told = |text: &str| {
            let mut tail = Tail::default();
            tail.add(text.as_bytes());
            tail.shutdown()
        };
        assert_eq!(told(""), None);
        assert_eq!(told("cut off\n{\"event\": \"STOP\"}\r\n"), None);
        let shutdown =
            |reason: &str| format!("{{\"event\": \"SHUTDOWN\", \"data\": {{\"reason\": \"{reason}\"}}}}\r\n");
        assert_eq!(told(&shutdown("guest-reset")), Some("its guest restarted it"));
        assert_eq!(
            told(&format!("off\"}}\r\n{}{{\"eve", shutdown("guest-shutdown"))),
            Some("its guest switched it off")
        );
    }
}
