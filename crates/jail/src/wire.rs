//! What host and launcher say to each other: one packet is one message, descriptors travel beside it.
//!
//! Both ends are built from this file and ship in one executable, so there is no version; yet a packet that does not parse
//! is an error, never a guess.

use crate::fault::Fault;

/// Bytes of the longest packet: the layers of a room's root, or a path of 4,096 bytes and what stands beside it.
pub const PACKET_BYTES_MAX: usize = 32 << 10;
/// Descriptors that one packet may carry.
pub const DESCRIPTORS_MAX: usize = 8;

/// From the host to the launcher.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// First, once. With it: the cell's program.
    Configure {
        /// The directory under which all sessions' directories lie.
        data: Vec<u8>,
        /// The certificate of an authority that programs of rooms are to trust, in PEM; empty: none.
        authority: Vec<u8>,
        /// Directories below which rooms' roots may lie as well. One that is not there is left out.
        roots: Vec<Vec<u8>>,
    },
    /// Make a room that waits for its session. With it: the `cgroup.procs` files that its first process writes itself into.
    Park {
        /// The host's name for the room, here and in later news.
        room: u64,
        root: Root,
    },
    /// Give a waiting room its session. With it: the socket on which the cell listens. The host has recorded the room's first
    /// process before, as from here on the room can come to live without launcher and host.
    Start(Start),
}

/// What a room's root is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// The one that the stage has ready: the host's `/usr`.
    Stage,
    /// Directories, the uppermost first. Each is named by its path on the stage: `data/…`, or `roots/<n>/…` in the order of
    /// [`Order::Configure`].
    Layers(Vec<Vec<u8>>),
    /// The stage's, and these directories laid over it, the uppermost first, named alike. What a room's root must be, it stays.
    Over(Vec<Vec<u8>>),
}

/// What binds a room to its session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    pub room: u64,
    /// The session's directory, relative to `data`.
    pub directory: Vec<u8>,
    /// First of the host ids that belong to this session; `None`: there is only the launcher's own (ordinary user).
    pub ids: Option<u32>,
    pub open_files: u64,
    pub file_bytes: u64,
    /// Bytes of `/tmp`, which the room keeps in memory; `/dev/shm` has half as many.
    pub tmp_bytes: u64,
    /// Processes of one uid, where no cgroup limits them.
    pub processes: Option<u64>,
    /// Memory that each process may call its own, where no cgroup limits what they have together.
    pub memory_bytes: Option<u64>,
    /// How long the cell waits for a host that is gone.
    pub orphan_seconds: u64,
    /// `None`: no way out.
    pub outlet: Option<Outlet>,
}

/// Where a room's way out begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlet {
    /// The directory with the host's socket, relative to `data`.
    pub directory: Vec<u8>,
    /// On which programs that know of no proxy are served.
    pub ports: Vec<u16>,
}

/// From the launcher to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// The stage is set: rooms can be started.
    Ready,
    /// The stage could not be set; the launcher ends.
    Unable(Fault),
    /// The room's first process exists. With it: a pidfd. The walls may still fail; `Ended` says so.
    Parked { room: u64, pid: u32 },
    /// All of the room that needs no session is built; it does nothing until it is given one.
    Waits { room: u64 },
    /// The room and all its processes are gone. Without `Parked` before it, it never came to be.
    Ended { room: u64, end: End },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    Code(i32),
    Signal(i32),
    Failed(Fault),
}

/// A packet that is not one of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl Order {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            Order::Configure { data, authority, roots } => {
                out.number(0);
                out.bytes(data);
                out.bytes(authority);
                out.list(roots);
            }
            Order::Park { room, root } => {
                out.number(1);
                out.number(*room);
                match root {
                    Root::Stage => out.number(0),
                    Root::Layers(layers) => {
                        out.number(1);
                        out.list(layers);
                    }
                    Root::Over(layers) => {
                        out.number(2);
                        out.list(layers);
                    }
                }
            }
            Order::Start(start) => {
                out.number(2);
                out.number(start.room);
                out.bytes(&start.directory);
                out.option(start.ids.map(u64::from));
                out.number(start.open_files);
                out.number(start.file_bytes);
                out.number(start.tmp_bytes);
                out.option(start.processes);
                out.option(start.memory_bytes);
                out.number(start.orphan_seconds);
                out.number(u64::from(start.outlet.is_some()));
                if let Some(outlet) = &start.outlet {
                    out.bytes(&outlet.directory);
                    out.bytes(&outlet.ports.iter().flat_map(|port| port.to_le_bytes()).collect::<Vec<u8>>());
                }
            }
        }
        out.0
    }

    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(packet);
        let order = match from.number()? {
            0 => Order::Configure { data: from.bytes()?, authority: from.bytes()?, roots: from.list()? },
            1 => Order::Park {
                room: from.number()?,
                root: match from.number()? {
                    0 => Root::Stage,
                    1 => Root::Layers(from.list()?),
                    2 => Root::Over(from.list()?),
                    _ => return Err(Malformed),
                },
            },
            2 => Order::Start(Start {
                room: from.number()?,
                directory: from.bytes()?,
                ids: from.option()?.map(u32::try_from).transpose().map_err(|_| Malformed)?,
                open_files: from.number()?,
                file_bytes: from.number()?,
                tmp_bytes: from.number()?,
                processes: from.option()?,
                memory_bytes: from.option()?,
                orphan_seconds: from.number()?,
                outlet: match from.number()? {
                    0 => None,
                    1 => Some(Outlet { directory: from.bytes()?, ports: from.ports()? }),
                    _ => return Err(Malformed),
                },
            }),
            _ => return Err(Malformed),
        };
        from.end(order)
    }
}

impl News {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        match self {
            News::Ready => out.number(0),
            News::Unable(fault) => {
                out.number(1);
                out.fault(fault);
            }
            News::Parked { room, pid } => {
                out.number(2);
                out.number(*room);
                out.number(u64::from(*pid));
            }
            News::Waits { room } => {
                out.number(4);
                out.number(*room);
            }
            News::Ended { room, end } => {
                out.number(3);
                out.number(*room);
                match end {
                    End::Code(code) => out.signed(0, *code),
                    End::Signal(signal) => out.signed(1, *signal),
                    End::Failed(fault) => {
                        out.number(2);
                        out.fault(fault);
                    }
                }
            }
        }
        out.0
    }

    pub fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(packet);
        let news = match from.number()? {
            0 => News::Ready,
            1 => News::Unable(from.fault()?),
            2 => News::Parked { room: from.number()?, pid: u32::try_from(from.number()?).map_err(|_| Malformed)? },
            4 => News::Waits { room: from.number()? },
            3 => News::Ended {
                room: from.number()?,
                end: match from.number()? {
                    0 => End::Code(from.signed()?),
                    1 => End::Signal(from.signed()?),
                    2 => End::Failed(from.fault()?),
                    _ => return Err(Malformed),
                },
            },
            _ => return Err(Malformed),
        };
        from.end(news)
    }
}

impl Fault {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Writer::default();
        out.fault(self);
        out.0
    }

    pub(crate) fn decode(packet: &[u8]) -> Result<Self, Malformed> {
        let mut from = Reader(packet);
        let fault = from.fault()?;
        from.end(fault)
    }
}

#[derive(Default)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn signed(&mut self, tag: u64, number: i32) {
        self.number(tag);
        self.number(i64::from(number) as u64);
    }

    pub(crate) fn option(&mut self, number: Option<u64>) {
        self.number(u64::from(number.is_some()));
        self.number(number.unwrap_or(0));
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn list(&mut self, items: &[Vec<u8>]) {
        self.number(items.len() as u64);
        items.iter().for_each(|item| self.bytes(item));
    }

    pub(crate) fn fault(&mut self, fault: &Fault) {
        self.number(i64::from(fault.errno) as u64);
        self.bytes(fault.doing.as_bytes());
    }
}

pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(packet: &'a [u8]) -> Self {
        Reader(packet)
    }

    pub(crate) fn number(&mut self) -> Result<u64, Malformed> {
        let (head, rest) = self.0.split_first_chunk::<8>().ok_or(Malformed)?;
        self.0 = rest;
        Ok(u64::from_le_bytes(*head))
    }

    fn signed(&mut self) -> Result<i32, Malformed> {
        i32::try_from(self.number()? as i64).map_err(|_| Malformed)
    }

    pub(crate) fn option(&mut self) -> Result<Option<u64>, Malformed> {
        match (self.number()?, self.number()?) {
            (0, _) => Ok(None),
            (1, number) => Ok(Some(number)),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn bytes(&mut self) -> Result<Vec<u8>, Malformed> {
        let length = usize::try_from(self.number()?).map_err(|_| Malformed)?;
        if length > self.0.len() {
            return Err(Malformed);
        }
        let (head, rest) = self.0.split_at(length);
        self.0 = rest;
        Ok(head.to_vec())
    }

    pub(crate) fn list(&mut self) -> Result<Vec<Vec<u8>>, Malformed> {
        // No room is taken for what is announced: a packet is short, and each item takes a part of it.
        (0..self.number()?).map(|_| self.bytes()).collect()
    }

    fn ports(&mut self) -> Result<Vec<u16>, Malformed> {
        let bytes = self.bytes()?;
        let (ports, []) = bytes.as_chunks::<2>() else { return Err(Malformed) };
        Ok(ports.iter().map(|port| u16::from_le_bytes(*port)).collect())
    }

    pub(crate) fn fault(&mut self) -> Result<Fault, Malformed> {
        let errno = self.signed()?;
        let doing = String::from_utf8(self.bytes()?).map_err(|_| Malformed)?;
        Ok(Fault { doing, errno })
    }

    pub(crate) fn end<T>(&self, read: T) -> Result<T, Malformed> {
        if self.0.is_empty() { Ok(read) } else { Err(Malformed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orders() -> Vec<Order> {
        let start = Start {
            room: 7,
            directory: b"sessions/sesn_1".to_vec(),
            ids: Some(0x7000_0010),
            open_files: 1024,
            file_bytes: u64::MAX,
            tmp_bytes: 0,
            processes: None,
            memory_bytes: None,
            orphan_seconds: 600,
            outlet: None,
        };
        let outlet = Outlet { directory: b"rooms/sesn_1/outlet".to_vec(), ports: vec![80, 65_535] };
        let user = Start {
            ids: None,
            processes: Some(512),
            memory_bytes: Some(2 << 30),
            outlet: Some(outlet),
            ..start.clone()
        };
        let (authority, roots) = (b"-----BEGIN".to_vec(), vec![b"/srv/roots".to_vec(), Vec::new()]);
        let configure = Order::Configure { data: b"/data/\xff".to_vec(), authority, roots };
        let layers = Root::Layers(vec![b"data/images/layers/a".to_vec(), b"roots/0".to_vec()]);
        let over = Root::Over(vec![b"data/images/layers/b".to_vec()]);
        let parks = [Root::Stage, layers, over].map(|root| Order::Park { room: 7, root });
        parks.into_iter().chain([configure, Order::Start(start), Order::Start(user)]).collect()
    }

    fn news() -> Vec<News> {
        let fault = Fault { doing: "mounting /proc".into(), errno: 1 };
        let ends = [End::Code(-1), End::Signal(9), End::Failed(fault.clone())];
        let mut news = vec![News::Ready, News::Unable(fault), News::Waits { room: 3 }];
        news.push(News::Parked { room: u64::MAX, pid: 42 });
        news.extend(ends.map(|end| News::Ended { room: 1, end }));
        news
    }

    #[test]
    fn what_is_written_is_read() {
        for order in orders() {
            assert_eq!(Order::decode(&order.encode()), Ok(order));
        }
        for item in news() {
            assert_eq!(News::decode(&item.encode()), Ok(item));
        }
    }

    #[test]
    fn a_packet_cut_short_or_too_long_is_refused() {
        for packet in orders().iter().map(Order::encode) {
            for length in 0..packet.len() {
                assert_eq!(Order::decode(&packet[..length]), Err(Malformed), "cut at {length}");
            }
            assert_eq!(Order::decode(&[&packet[..], b"x"].concat()), Err(Malformed));
        }
    }
}
