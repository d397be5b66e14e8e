//! Every maximum of the cell that the host need not know. The others are in `loopd_domain::limits`.

use loopd_domain::limits::TOOL_RESULT_BYTES_MAX;
use std::time::Duration;

/// How long to wait for a host when nobody says otherwise.
pub const PATIENCE_DEFAULT: Duration = Duration::from_secs(600);
/// How long a bash command may take, in milliseconds.
pub const BASH_TIMEOUT_MS_DEFAULT: u64 = 120_000;
pub const BASH_TIMEOUT_MS_MAX: u64 = 3_600_000;
/// How long any other tool may take.
pub const WORKER_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of output kept from its beginning, and as many from its end; the rest of a result is for what is said about it.
pub const OUTPUT_END_BYTES_MAX: usize = (TOOL_RESULT_BYTES_MAX - (4 << 10)) / 2;
/// Bytes of one spill file.
pub const SPILL_BYTES_MAX: u64 = 256 << 20;
/// Bytes taken from one pipe in one round of the event loop, so that a flood does not keep the host waiting.
pub const ROUND_BYTES_MAX: usize = 256 << 10;
/// Time between two previews of one call, and bytes of one preview.
pub const PREVIEW_EVERY: Duration = Duration::from_millis(100);
pub const PREVIEW_BYTES_MAX: usize = 8 << 10;
/// Bytes that may wait for the host before previews are dropped.
pub const OUTBOX_PREVIEW_BYTES_MAX: usize = 64 << 10;
/// Bytes of results in one batch, well below a frame's maximum; more go out in several.
pub const BATCH_BYTES_MAX: usize = 24 << 20;
/// Bytes of the largest answer after which a runner serves another call; a larger one leaves its memory large.
pub const RUNNER_ANSWER_BYTES_MAX: usize = 64 << 10;
/// Bytes of one answer of a worker: a document in base 64 and its frame.
pub const WORKER_ANSWER_BYTES_MAX: usize = 16 << 20;
/// Bytes of text that `read` gives at once.
pub const READ_TEXT_BYTES_MAX: usize = 256 << 10;
/// Bytes of an image and of a document that `read` gives.
pub const READ_IMAGE_BYTES_MAX: u64 = 5 << 20;
pub const READ_DOCUMENT_BYTES_MAX: u64 = 10 << 20;
/// Bytes of a file that `edit` changes.
pub const EDIT_FILE_BYTES_MAX: u64 = 64 << 20;
/// Paths that `glob` gives.
pub const GLOB_PATHS_MAX: usize = 200;
/// Bytes of one line that `grep` shows.
pub const GREP_LINE_BYTES_MAX: usize = 2 << 10;
/// Bytes of memory for one line that `grep` looks at.
pub const GREP_HEAP_BYTES_MAX: usize = 64 << 20;
/// Variables that the host gives to programs of the room, and bytes of one with its name.
pub const VARIABLES_MAX: usize = 256;
pub const VARIABLE_BYTES_MAX: usize = 64 << 10;

// The network stub.
/// Hosts that have an address at the same time; each has a listening socket per port.
pub const NETWORK_NAMES_MAX: usize = 256;
/// Connections carried at the same time; more wait to be accepted.
pub const NETWORK_CONNECTIONS_MAX: usize = 256;
/// Connections that wait to be accepted, per listening socket.
pub const NETWORK_BACKLOG: i32 = 64;
/// DNS queries over TCP: connections, and how long one may lie idle.
pub const DNS_CONNECTIONS_MAX: usize = 8;
pub const DNS_PATIENCE: Duration = Duration::from_secs(5);
/// DNS queries answered, and connections accepted from one socket, in one round.
pub const ROUND_QUERIES_MAX: usize = 64;
pub const ROUND_ACCEPTS_MAX: usize = 16;
/// Bytes of the head of an answer to `CONNECT`.
pub const ANSWER_HEAD_BYTES_MAX: usize = 16 << 10;
/// How long a connection waits for the host's end when nobody listens there, and how often it looks.
pub const OUTLET_PATIENCE: Duration = Duration::from_secs(15);
pub const OUTLET_RETRY: Duration = Duration::from_millis(50);
/// How long a program whose host is refused may take for its first words, which show how it can be told.
pub const FIRST_WORDS_PATIENCE: Duration = Duration::from_secs(2);
/// How long a program may take to read the last of an answer.
pub const LINGER: Duration = Duration::from_secs(5);
/// How long nothing may come for a program that has ended its own side.
pub const HALF_OPEN_PATIENCE: Duration = Duration::from_secs(60);
/// Nothing is accepted for so long when descriptors or memory are used up.
pub const EXHAUSTION_PAUSE: Duration = Duration::from_millis(100);
/// A stub that has ended is not started again before this.
pub const RESTART_PAUSE: Duration = Duration::from_millis(500);
