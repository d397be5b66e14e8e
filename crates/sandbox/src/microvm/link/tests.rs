//! The host's end against a guest in the same process, well-behaved or not.

use super::*;
use crate::files::wire::{WireSink, acknowledge, receive};
use crate::files::{Content, FileEntry, FileKind, TreeWriter, read_tree};
use loopd_domain::limits::{LINK_MESSAGES_MAX, LINK_STREAMS_MAX, LINK_WINDOW_BYTES, OUTLET_WAITING_MAX};
use loopd_protocol::codec::{Decoder, encode};
use loopd_protocol::guest::{GuestEnd, GuestState};
use loopd_protocol::link::{Event, StreamId};
use std::collections::VecDeque;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};

const TOKEN: Token = Token::UNBOUND;
const SHORT: Patience = Patience {
    answer: Duration::from_millis(200),
    ask: Duration::from_millis(20),
    silence: Duration::from_millis(200),
};

struct Guest {
    socket: UnixStream,
    link: Link,
    events: VecDeque<Event>,
}

impl Guest {
    fn new(socket: UnixStream) -> Self {
        Guest { socket, link: Link::new(Side::Guest), events: VecDeque::new() }
    }

    /// Reads or writes once.
    async fn step(&mut self) {
        let is_idle = self.link.output().is_empty();
        let interest = if is_idle { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = self.socket.ready(interest).await.unwrap();
        if ready.is_writable()
            && let Ok(sent) = self.socket.try_write(self.link.output())
        {
            self.link.sent(sent);
        }
        let mut bytes = [0; 8 << 10];
        if ready.is_readable()
            && let Ok(read) = self.socket.try_read(&mut bytes)
        {
            assert!(read > 0, "the host is gone");
            self.link.push(&bytes[..read]);
        }
        while let Ok(Some(event)) = self.link.next() {
            self.events.push_back(event);
        }
    }

    async fn next(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            self.step().await;
        }
    }

    /// The first event that `wanted` wants; others are passed over.
    async fn find<T>(&mut self, mut wanted: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            let event = self.next().await;
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    }

    async fn opened(&mut self, wanted: StreamKind) -> StreamId {
        self.find(|event| match event {
            Event::Opened { id, kind } if *kind == wanted => Some(*id),
            _ => None,
        })
        .await
    }

    /// Reads a stream to its end.
    async fn read(&mut self, of: StreamId) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.next().await {
                Event::Data { id, bytes } if id == of => {
                    self.link.take(id, bytes.len());
                    all.extend(bytes);
                }
                Event::Ended { id } if id == of => return all,
                _ => {}
            }
        }
    }

    async fn flush(&mut self) {
        while !self.link.output().is_empty() {
            self.step().await;
        }
    }

    async fn write(&mut self, id: StreamId, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = &bytes[self.link.write(id, bytes)..];
            if !bytes.is_empty() {
                self.step().await;
            }
        }
    }

    async fn say(&mut self, id: StreamId, message: &FromGuest) {
        let mut bytes = Vec::new();
        encode(message, &mut bytes).unwrap();
        self.write(id, &bytes).await;
        self.flush().await;
    }

    /// Bytes past the link: what no guest of ours would say.
    async fn raw(&mut self, bytes: &[u8]) {
        self.flush().await;
        self.socket.write_all(bytes).await.unwrap();
    }

    async fn serve(mut self) -> ! {
        loop {
            self.step().await;
        }
    }
}

/// A host and a guest that have met.
async fn met() -> (LinkHost, Control, Guest) {
    met_with(Patience::default()).await
}

async fn met_with(patience: Patience) -> (LinkHost, Control, Guest) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let mut guest = Guest::new(theirs);
    let (met, ()) = tokio::join!(LinkHost::connect(ours, &TOKEN, Nonce([1; 16]), patience), async {
        assert_eq!(guest.next().await, Event::Reset { nonce: Nonce([1; 16]) });
        guest.flush().await;
    });
    let (host, control) = met.unwrap();
    (host, control, guest)
}

async fn dead(host: &LinkHost) -> LinkDead {
    host.dead().wait_for(Option::is_some).await.unwrap().clone().unwrap()
}

fn frame(id: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    [&id.to_le_bytes()[..], &[kind], &length, payload].concat()
}

const READY: FromGuest = FromGuest::Ready { version: 1, state: GuestState::Booted };

#[tokio::test]
async fn messages_and_cells_go_both_ways() {
    let (host, mut control, mut guest) = met().await;
    let id = guest.opened(StreamKind::Control).await;
    assert_eq!(id, StreamId(0), "the first");
    guest.say(id, &READY).await;
    assert_eq!(control.from.recv().await, Some(READY));
    control.to.send(ToGuest::Sync).await.unwrap();
    let mut decoder = Decoder::default();
    guest
        .find(|event| match event {
            Event::Data { bytes, .. } => {
                decoder.push(bytes);
                decoder.next::<ToGuest>().unwrap().map(|message| assert_eq!(message, ToGuest::Sync))
            }
            _ => None,
        })
        .await;

    let mut cell = host.open_cell().unwrap();
    cell.write_all(b"question").await.unwrap();
    cell.shutdown().await.unwrap();
    let id = guest.opened(StreamKind::Cell).await;
    assert_eq!(guest.read(id).await, b"question");
    // The other half goes on.
    let answer = vec![7; 3 * LINK_WINDOW_BYTES as usize];
    let (read, ()) = tokio::join!(
        async {
            let mut read = Vec::new();
            cell.read_to_end(&mut read).await.map(|_| read)
        },
        async {
            guest.write(id, &answer).await;
            guest.link.end(id);
            guest.flush().await;
        }
    );
    assert!(read.unwrap() == answer);
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nobody_else_and_little_is_kept() {
    let (host, _control, mut guest) = met().await;
    let (_slow, mut other) = (host.open_cell().unwrap(), host.open_cell().unwrap());
    let (first, second) = (guest.opened(StreamKind::Cell).await, guest.opened(StreamKind::Cell).await);
    // It says as much of the first as it may, until it is told nothing more.
    let mut written = 0;
    let answer = async {
        let mut byte = [0; 1];
        other.read_exact(&mut byte).await.map(|_| byte)
    };
    tokio::pin!(answer);
    let mut rounds_without = 0;
    while rounds_without < 20 {
        let more = guest.link.write(first, &[1; 64 << 10]);
        written += more;
        rounds_without = if more > 0 { 0 } else { rounds_without + 1 };
        drop(tokio::time::timeout(Duration::from_millis(10), guest.step()).await);
    }
    // A window, half of one that was taken, and what two sockets hold.
    assert!(written < 4 * LINK_WINDOW_BYTES as usize, "{written}");
    assert_eq!(guest.link.write(second, b"!"), 1);
    let ((), byte) = tokio::join!(guest.flush(), answer);
    assert_eq!(byte.unwrap(), *b"!");
    assert_eq!(*host.dead().borrow(), None);
}

#[tokio::test]
async fn what_breaks_a_rule_ends_this_link_and_no_other() {
    let window = frame(1, 0, &[0; 64 << 10]).repeat(LINK_WINDOW_BYTES as usize >> 16);
    let open = frame(1, 2, &[2]);
    let cases = [
        frame(1, 9, &[]),
        // The cell's is 2.
        frame(4, 0, b"x"),
        frame(1, 2, &[0]),
        [open.clone(), open.clone()].concat(),
        [open.clone(), window, frame(1, 0, b"x")].concat(),
        [open, frame(1, 1, &1_u32.to_le_bytes())].concat(),
        [&[0; 8][..], &[0xff]].concat(),
    ];
    let (good, mut control, mut neighbour) = met().await;
    for bytes in cases {
        let (host, mut messages, mut guest) = met().await;
        let mut cell = host.open_cell().unwrap();
        guest.raw(&bytes).await;
        assert!(matches!(dead(&host).await, LinkDead::Rule(_)), "{:?}", host.dead().borrow());
        assert_eq!(cell.read(&mut [0; 1]).await.unwrap(), 0);
        assert_eq!(messages.from.recv().await, None);
        assert!(host.open_cell().is_err());
        assert!(host.outlet().accept().await.is_err());
    }
    let id = neighbour.opened(StreamKind::Control).await;
    neighbour.say(id, &READY).await;
    assert_eq!(control.from.recv().await, Some(READY));
    assert_eq!(*good.dead().borrow(), None);
}

/// A machine that goes down says so, and is gone: what it said arrives.
#[tokio::test]
async fn last_words_arrive() {
    let (host, mut control, mut guest) = met().await;
    let (mut cell, mut outlet) = (host.open_cell().unwrap(), host.outlet());
    let id = guest.opened(StreamKind::Control).await;
    let cell_id = guest.opened(StreamKind::Cell).await;
    let wish = guest.link.open(StreamKind::Outlet).unwrap();
    let ((), wished) = tokio::join!(guest.flush(), outlet.accept());
    let mut wished = wished.unwrap();
    let words = vec![3; LINK_WINDOW_BYTES as usize];
    let ended = FromGuest::Ended { end: GuestEnd::Code { code: 0 } };
    let mut bytes = Vec::new();
    encode(&ended, &mut bytes).unwrap();
    guest.write(cell_id, &words).await;
    guest.write(wish, b"wish").await;
    guest.write(id, &bytes).await;
    guest.flush().await;
    drop(guest);
    assert_eq!(dead(&host).await, LinkDead::Closed);
    drop(host);
    let mut read = Vec::new();
    cell.read_to_end(&mut read).await.unwrap();
    assert!(read == words, "{}", read.len());
    assert_eq!(control.from.recv().await, Some(ended));
    assert_eq!(control.from.recv().await, None);
    let mut bytes = Vec::new();
    wished.read_to_end(&mut bytes).await.unwrap_err();
    assert_eq!(bytes, b"wish");
    wished.write_all(b"x").await.unwrap_err();
}

#[tokio::test]
async fn what_is_no_message_ends_the_link() {
    let half = |bytes: &[u8]| [&(bytes.len() as u32).to_le_bytes()[..], bytes].concat();
    for bytes in [half(b"{}"), half(b"\xff"), half(b""), (48_u32 << 20).to_le_bytes().to_vec()] {
        let (host, _control, mut guest) = met().await;
        let id = guest.opened(StreamKind::Control).await;
        guest.write(id, &bytes).await;
        guest.flush().await;
        assert!(matches!(dead(&host).await, LinkDead::Nonsense(_)), "{:?}", host.dead().borrow());
    }
    let (host, _control, mut guest) = met().await;
    let id = guest.opened(StreamKind::Control).await;
    guest.link.end(id);
    guest.flush().await;
    assert!(matches!(dead(&host).await, LinkDead::Nonsense(_)), "{:?}", host.dead().borrow());
}

#[tokio::test]
async fn a_guest_that_does_not_answer_is_given_up() {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    // It says a lot, but no answer.
    let chatter = tokio::spawn(async move { while theirs.write_all(&[0xff; 1 << 10]).await.is_ok() {} });
    let fault = LinkHost::connect(ours, &TOKEN, Nonce([1; 16]), SHORT).await.map(|_| ()).unwrap_err();
    assert_eq!(fault, LinkDead::Silent { ms: 200 });
    chatter.await.unwrap();

    let (ours, theirs) = UnixStream::pair().unwrap();
    drop(theirs);
    let fault = LinkHost::connect(ours, &TOKEN, Nonce([1; 16]), SHORT).await.map(|_| ()).unwrap_err();
    assert_eq!(fault, LinkDead::Closed);
}

#[tokio::test]
async fn a_guest_that_falls_silent_is_given_up_and_one_that_answers_is_not() {
    let (host, _control, guest) = met_with(Patience { silence: SHORT.silence, ..Patience::default() }).await;
    // It reads, and says nothing.
    let mute = tokio::spawn(async move {
        let mut bytes = [0; 1 << 10];
        loop {
            guest.socket.readable().await.unwrap();
            drop(guest.socket.try_read(&mut bytes));
        }
    });
    assert_eq!(dead(&host).await, LinkDead::Silent { ms: 200 });
    mute.abort();

    let (host, _control, mut guest) = met_with(Patience { ask: SHORT.ask, ..Patience::default() }).await;
    let mut decoder = Decoder::default();
    let (mut answered, control) = (0, guest.opened(StreamKind::Control).await);
    while answered < 30 {
        if let Event::Data { bytes, id } = guest.next().await {
            guest.link.take(id, bytes.len());
            decoder.push(&bytes);
            while let Some(ToGuest::Ping { number }) = decoder.next().unwrap() {
                answered += 1;
                guest.say(control, &FromGuest::Pong { number }).await;
            }
        }
    }
    assert_eq!(*host.dead().borrow(), None);
}

#[tokio::test]
async fn a_host_that_does_not_take_messages_blames_nobody() {
    let (host, mut control, mut guest) = met_with(Patience { silence: Duration::from_secs(1), ..SHORT }).await;
    let id = guest.opened(StreamKind::Control).await;
    let many = LINK_MESSAGES_MAX + 2;
    for number in 0..many {
        guest.say(id, &FromGuest::Log { text: number.to_string() }).await;
    }
    let served = tokio::spawn(guest.serve());
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(*host.dead().borrow(), None);
    for number in 0..many {
        assert_eq!(control.from.recv().await, Some(FromGuest::Log { text: number.to_string() }));
    }
    // Now it can be.
    assert_eq!(dead(&host).await, LinkDead::Silent { ms: 1_000 });
    served.abort();
}

#[tokio::test]
async fn a_thousand_wishes_and_as_many_as_may_wait() {
    let (host, _control, mut guest) = met().await;
    let mut outlet = host.outlet();
    let mut taken = Vec::new();
    for number in 0..1_000_u32 {
        let id = guest.link.open(StreamKind::Outlet).unwrap();
        guest.write(id, &number.to_le_bytes()).await;
        let ((), stream) = tokio::join!(guest.flush(), outlet.accept());
        taken.push((id, number, stream.unwrap()));
    }
    // The last is answered first.
    for (id, number, mut stream) in taken.into_iter().rev() {
        let mut bytes = [0; 4];
        stream.read_exact(&mut bytes).await.unwrap();
        assert_eq!(u32::from_le_bytes(bytes), number);
        stream.write_all(b"yes").await.unwrap();
        drop(stream);
        // What was said before the stream was closed arrives.
        assert_eq!(guest.read(id).await, b"yes");
        guest.link.end(id);
    }
    // Nobody accepts: some wait, the others are refused, and one that is given up meanwhile makes place.
    let wait = OUTLET_WAITING_MAX as usize;
    let ids: Vec<StreamId> = (0..wait + 3).map(|_| guest.link.open(StreamKind::Outlet).unwrap()).collect();
    for refused in &ids[wait..] {
        assert_eq!(guest.next().await, Event::Aborted { id: *refused });
    }
    guest.link.abort(ids[0]);
    guest.link.abort(ids[1]);
    guest.link.end(ids[2]);
    let other = guest.link.open(StreamKind::Outlet).unwrap();
    let last = guest.link.open(StreamKind::Outlet).unwrap();
    // The one after it is refused again: by then the host has heard of both.
    let refused = guest.link.open(StreamKind::Outlet).unwrap();
    assert_eq!(guest.next().await, Event::Aborted { id: refused });
    let mut accepted = Vec::new();
    for _ in 0..wait {
        accepted.push(outlet.accept().await.unwrap());
    }
    guest.write(last, b"last").await;
    let mut bytes = [0; 4];
    let ((), read) = tokio::join!(guest.flush(), accepted[wait - 1].read_exact(&mut bytes));
    read.unwrap();
    assert_eq!(&bytes, b"last");
    assert_ne!(last, other);
    // Nobody will accept any more.
    let waits = guest.link.open(StreamKind::Outlet).unwrap();
    guest.flush().await;
    drop(outlet);
    assert_eq!(guest.next().await, Event::Aborted { id: waits });
    let late = guest.link.open(StreamKind::Outlet).unwrap();
    assert_eq!(guest.next().await, Event::Aborted { id: late });
    assert_eq!(*host.dead().borrow(), None);
}

#[tokio::test]
async fn who_goes_on_after_a_stream_was_closed_is_heard_out_for_a_while_and_then_cut_off() {
    let (host, _control, mut guest) = met().await;
    let mut outlet = host.outlet();
    // One says a little more, and ends; one was not heard at all; one does not stop.
    for (said, more) in [(0, 1_000), (LINK_WINDOW_BYTES as usize, 0), (10, usize::MAX)] {
        let id = guest.link.open(StreamKind::Outlet).unwrap();
        guest.write(id, &vec![1; said]).await;
        let ((), stream) = tokio::join!(guest.flush(), outlet.accept());
        let mut stream = stream.unwrap();
        stream.write_all(b"bye").await.unwrap();
        drop(stream);
        assert_eq!(guest.read(id).await, b"bye");
        let (mut left, mut is_cut_off) = (more, false);
        while left > 0 && !is_cut_off {
            left -= guest.link.write(id, &vec![1; left.min(10_000)]);
            guest.step().await;
            is_cut_off = guest.events.drain(..).any(|event| event == Event::Aborted { id });
        }
        guest.link.end(id);
        guest.flush().await;
        assert_eq!(is_cut_off, more == usize::MAX, "{said} {more}");
    }
    // Nothing is left of them: as many as may be open can be opened.
    let mut streams = Vec::new();
    for _ in 0..LINK_STREAMS_MAX {
        guest.link.open(StreamKind::Outlet).unwrap();
        let ((), stream) = tokio::join!(guest.flush(), outlet.accept());
        streams.push(stream.unwrap());
    }
    assert_eq!(*host.dead().borrow(), None);
}

#[tokio::test]
async fn a_server_that_is_gone_in_the_middle_of_a_frame_is_followed_by_another() {
    // The guest's link is the same on each connection, as the machine's is.
    let mut guest = Guest::new(UnixStream::pair().unwrap().1);
    for round in 1..6_u8 {
        let (mut raw, theirs) = UnixStream::pair().unwrap();
        guest.socket = theirs;
        // Half a frame of a server that dies; from the second round on, in a link that is up.
        raw.write_all(&frame(0, 0, &[b'x'; 100])[..usize::from(round) * 9]).await.unwrap();
        guest.step().await;
        drop(raw);

        let (ours, theirs) = UnixStream::pair().unwrap();
        guest.socket = theirs;
        guest.link.open(StreamKind::Outlet).ok();
        let nonce = Nonce([round; 16]);
        let (met, ()) = tokio::join!(LinkHost::connect(ours, &TOKEN, nonce, Patience::default()), async {
            guest.find(|event| (*event == Event::Reset { nonce }).then_some(())).await;
            guest.flush().await;
        });
        let (host, mut control) = met.unwrap();
        let id = guest.opened(StreamKind::Control).await;
        guest.say(id, &READY).await;
        assert_eq!(control.from.recv().await, Some(READY), "round {round}");
        assert_eq!(*host.dead().borrow(), None);
        drop(host);
        assert_eq!(control.from.recv().await, None);
    }
}

/// What a guest does with `WriteFiles`: takes all, writes it, answers.
async fn take_files(guest: &mut Guest, into: &std::path::Path) {
    let id = guest.opened(StreamKind::WriteFiles).await;
    let bytes = guest.read(id).await;
    let mut writer = TreeWriter::new(into, &[("workspace", None)]).unwrap();
    let result = receive(bytes.as_slice(), &mut writer);
    let mut answer = Vec::new();
    acknowledge(&mut answer, &result).unwrap();
    guest.write(id, &answer).await;
    guest.link.end(id);
    guest.flush().await;
}

#[tokio::test]
async fn files_go_in_and_come_out() {
    let (host, _control, mut guest) = met().await;
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for directory in [&old, &new] {
        std::fs::create_dir(directory.path().join("workspace")).unwrap();
    }
    let large: Vec<u8> = (0..3_u32 << 20).map(|at| (at >> 7) as u8).collect();
    std::fs::write(old.path().join("workspace/large"), &large).unwrap();
    std::fs::write(old.path().join("workspace/small"), "small").unwrap();

    let host = Arc::new(host);
    let (sending, from) = (Arc::clone(&host), old.path().to_owned());
    let sent = tokio::task::spawn_blocking(move || {
        let mut writer = sending.write_files()?;
        read_tree(&from, &["workspace"], writer.as_mut())?;
        writer.finish()
    });
    let (sent, ()) = tokio::join!(sent, take_files(&mut guest, new.path()));
    sent.unwrap().unwrap();
    assert!(std::fs::read(new.path().join("workspace/large")).unwrap() == large);

    struct Names(Vec<String>);
    impl FileSink for Names {
        fn put(&mut self, entry: &FileEntry, _: Content<'_>) -> io::Result<()> {
            self.0.push(entry.path.display().to_string());
            Ok(())
        }
    }
    let reading = Arc::clone(&host);
    let read = tokio::task::spawn_blocking(move || {
        let mut names = Names(Vec::new());
        let read = reading.read_files(&mut names)?;
        io::Result::Ok((names.0, read))
    });
    let mut sink = WireSink::new(Vec::new());
    let told = read_tree(new.path(), &["workspace"], &mut sink).unwrap();
    let bytes = sink.finish(told).unwrap();
    let (read, ()) = tokio::join!(read, async {
        let id = guest.opened(StreamKind::ReadFiles).await;
        guest.write(id, &bytes).await;
        guest.link.end(id);
        guest.flush().await;
    });
    let names = vec!["workspace/large".to_owned(), "workspace/small".to_owned()];
    assert_eq!(read.unwrap().unwrap(), (names, told));
}

#[tokio::test]
async fn a_guest_that_refuses_files_is_understood_and_one_that_cuts_them_off_is_too() {
    let (host, _control, mut guest) = met().await;
    let host = Arc::new(host);
    let sending = Arc::clone(&host);
    let sent = tokio::task::spawn_blocking(move || -> io::Result<()> {
        let mut writer = sending.write_files()?;
        loop {
            let kind = FileKind::File { bytes: 1 << 20 };
            let entry = FileEntry { path: "workspace/file".into(), kind, mode: 0o644, modified_s: 0 };
            writer.put(&entry, Content::Stream(&mut io::repeat(1)))?;
        }
    });
    let refuse = async {
        let id = guest.opened(StreamKind::WriteFiles).await;
        let mut answer = Vec::new();
        let full = io::Error::new(io::ErrorKind::InvalidInput, "too many files");
        acknowledge(&mut answer, &Err(full)).unwrap();
        guest.write(id, &answer).await;
        guest.link.abort(id);
        guest.flush().await;
    };
    let (sent, ()) = tokio::join!(sent, refuse);
    let fault = sent.unwrap().unwrap_err();
    assert_eq!((fault.kind(), fault.to_string().as_str()), (io::ErrorKind::InvalidInput, "too many files"));

    struct Any;
    impl FileSink for Any {
        fn put(&mut self, _: &FileEntry, _: Content<'_>) -> io::Result<()> {
            Ok(())
        }
    }
    let reading = Arc::clone(&host);
    let read = tokio::task::spawn_blocking(move || reading.read_files(&mut Any));
    let (read, ()) = tokio::join!(read, async {
        let id = guest.opened(StreamKind::ReadFiles).await;
        guest.link.end(id);
        guest.flush().await;
    });
    assert_eq!(read.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(*host.dead().borrow(), None);

    // The machine goes away while somebody waits for its files.
    let reading = Arc::clone(&host);
    let read = tokio::task::spawn_blocking(move || reading.read_files(&mut Any));
    guest.opened(StreamKind::ReadFiles).await;
    drop(guest);
    assert_eq!(read.await.unwrap().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(dead(&host).await, LinkDead::Closed);
}
