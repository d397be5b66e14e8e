//! Every maximum in one place. A limit that is not here does not exist.

/// Characters of a system prompt.
pub const SYSTEM_CHARS_MAX: usize = 100_000;
/// Characters of an agent's or an environment's name.
pub const NAME_CHARS_MAX: usize = 256;
/// Characters of a session's title.
pub const SESSION_TITLE_CHARS_MAX: usize = 500;
/// Characters of a description.
pub const DESCRIPTION_CHARS_MAX: usize = 2_048;
/// Pairs, key characters and value characters of a metadata object.
pub const METADATA_PAIRS_MAX: usize = 16;
pub const METADATA_KEY_CHARS_MAX: usize = 64;
pub const METADATA_VALUE_CHARS_MAX: usize = 512;
/// Entries of an agent's `tools`.
pub const TOOLS_MAX: usize = 128;
/// Characters of a custom tool's name and description; bytes of its schema.
pub const TOOL_NAME_CHARS_MAX: usize = 128;
pub const TOOL_DESCRIPTION_CHARS_MAX: usize = 10_000;
pub const TOOL_SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Events in one `POST …/events`, and `initial_events`.
pub const EVENTS_PER_REQUEST_MAX: usize = 50;
/// Content blocks in one message.
pub const BLOCKS_PER_MESSAGE_MAX: usize = 200;
/// Bytes of one HTTP request body.
pub const BODY_BYTES_MAX: usize = 32 << 20;
/// Connections that a server has open at the same time; more wait to be accepted.
pub const HTTP_CONNECTIONS_MAX: usize = 4_096;
/// How long the head of a request may take, and a connection may lie idle, in milliseconds.
pub const HTTP_HEAD_MS: u64 = 60_000;
/// Bytes of all header names and values of one request.
pub const HEADER_BYTES_MAX: usize = 64 << 10;
/// Values of one repeated query parameter.
pub const QUERY_VALUES_MAX: usize = 100;
/// Nesting depth of a JSON request body.
pub const JSON_DEPTH_MAX: usize = 64;
/// Client inputs that wait in one session while a turn runs.
pub const QUEUED_INPUTS_MAX: usize = 256;
/// Bytes of all those inputs together.
pub const QUEUED_BYTES_MAX: usize = 64 << 20;
/// Bytes of one tool result that enter the journal and the model's context; the rest is spilled to a file in the room.
pub const TOOL_RESULT_BYTES_MAX: usize = 100 << 10;
/// Bytes of one frame between cell and host.
pub const FRAME_BYTES_MAX: usize = 48 << 20;
/// Tool calls that one model answer may ask for; more are answered with an error the model can mend.
pub const CALLS_PER_STEP_MAX: usize = 64;
/// Calls of one step that run at the same time.
pub const CALLS_PARALLEL_MAX: usize = 8;
/// Characters of the address of an HTTP tool or an MCP server.
pub const TOOL_URL_CHARS_MAX: usize = 2_048;
/// Time for one attempt at an HTTP tool, in milliseconds.
pub const HTTP_TOOL_TIMEOUT_MS_DEFAULT: u64 = 60_000;
pub const HTTP_TOOL_TIMEOUT_MS_MAX: u64 = 600_000;
/// MCP servers of one agent.
pub const MCP_SERVERS_MAX: usize = 20;
/// Characters of an MCP server's name.
pub const MCP_SERVER_NAME_CHARS_MAX: usize = 255;
/// Tools that are taken of one MCP server, and bytes of their names and schemas together.
pub const MCP_TOOLS_MAX: usize = 128;
pub const MCP_LISTING_BYTES_MAX: usize = 1 << 20;
/// Time to connect to an MCP server and list its tools, and for one call, in milliseconds.
pub const MCP_CONNECT_TIMEOUT_MS: u64 = 10_000;
pub const MCP_CALL_TIMEOUT_MS: u64 = 300_000;
/// Bytes of images that one result of a tool which the host runs may carry, in base64.
pub const HOST_MEDIA_BYTES_MAX: usize = 8 << 20;
/// Bytes that are read of the answer of a tool that the host runs; what is left out of the result is counted up to here.
pub const HOST_ANSWER_BYTES_MAX: usize = 8 << 20;
/// Redirects within its host that an HTTP tool's request follows.
pub const HOST_REDIRECTS_MAX: usize = 3;
/// Attempts in all at a `keyed` call whose answer was lost, and the first wait between two, in milliseconds.
pub const KEYED_ATTEMPTS_MAX: u32 = 4;
pub const KEYED_BACKOFF_FIRST_MS: u64 = 200;
/// Bytes of one model answer, all blocks together; a longer one is cut off and the call fails.
pub const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Sessions that one process keeps alive (running, or idle with a room) at the same time.
pub const SESSIONS_LIVING_MAX: usize = 4_096;
/// Commands that wait for one session's driver.
pub const MAILBOX_MAX: usize = 64;
/// Frames that wait for one cell to read them.
pub const CELL_OUTBOX_MAX: usize = 256;
/// Frames that wait for one reader of an event stream; when they are full, previews are dropped and events wait.
pub const STREAM_FRAMES_MAX: usize = 256;
/// Bytes of those frames together; a single larger one waits alone.
pub const STREAM_BYTES_MAX: usize = 1 << 20;
/// A stream that has nothing to say sends a ping this often, in milliseconds.
pub const STREAM_PING_MS: u64 = 15_000;
/// How far a room is that somebody waits for is told this often at most, in milliseconds; the last word wins.
pub const ROOM_PROGRESS_MS: u64 = 250;
/// A room that says nothing of itself is told of after so long, and whoever waits for one hears of it at least this often.
pub const ROOM_PROGRESS_QUIET_MS: u64 = 1_000;
pub const ROOM_PROGRESS_REPEAT_MS: u64 = 5_000;
/// Characters of a printed line that such a word repeats, and bytes between two words of what is fetched or unpacked.
pub const ROOM_PROGRESS_LINE_CHARS_MAX: usize = 200;
pub const ROOM_PROGRESS_GRAIN_BYTES: u64 = 256 << 10;
/// Events of one session that a trace is made of.
pub const TRACE_EVENTS_MAX: usize = 100_000;
/// Connections of a room's programs that are served at the same time; more wait.
pub const OUTLET_CONNECTIONS_MAX: usize = 256;
/// Connections of one turn, and between it and the next, that the journal tells of one by one; more are counted.
pub const CONNECTIONS_PER_TURN_MAX: usize = 512;
/// How long a connection that has ended may wait to be written while nothing else is, in milliseconds.
pub const CONNECTION_REPORT_MS: u64 = 1_000;
/// Characters of a connection's host in the journal, and credentials that are named there.
pub const CONNECTION_HOST_CHARS_MAX: usize = 255;
pub const CONNECTION_CREDENTIALS_MAX: usize = 64;
/// Ports of an environment on which programs that know of no proxy are served.
pub const NETWORK_PORTS_MAX: usize = 16;
/// Previews (text deltas) and new entries that wait for one follower before it has to read the journal.
pub const TOLD_PER_FOLLOWER_MAX: usize = 1_024;
/// Bytes of new entries that are kept for the followers of one session until the slowest has heard them; what is more they read.
pub const TOLD_BYTES_MAX: usize = 1 << 20;
/// Appends that wait for the journal's writer, over all sessions.
pub const APPENDS_QUEUED_MAX: usize = 4_096;
/// Appends in one commit.
pub const APPENDS_PER_COMMIT_MAX: usize = 256;
/// Entries, and bytes of their payloads, of a journal that is imported whole.
pub const IMPORT_ENTRIES_MAX: usize = 200_000;
pub const IMPORT_BYTES_MAX: usize = 256 << 20;
/// Rows on one page of a list.
pub const PAGE_ROWS_MAX: usize = 1_000;
pub const PAGE_ROWS_DEFAULT: usize = 20;
pub const EVENT_PAGE_ROWS_DEFAULT: usize = 1_000;
/// How long a claim on a session lasts without renewal, in milliseconds.
pub const LEASE_MS: u64 = 10_000;
/// How long an answer that sets nothing off waits to be written with what follows from it, in milliseconds: longer than a small read
/// takes in a busy room, too short for anybody to notice.
pub const HELD_MS: u64 = 10;
/// How long an idle session keeps its room, in milliseconds.
pub const ROOM_IDLE_MS: u64 = 300_000;
/// Window in which a repeated POST (same key, or an SDK's retry with the same body) gets the first answer, in milliseconds.
pub const IDEMPOTENCY_WINDOW_MS: u64 = 24 * 3_600_000;
/// Longest idempotency key, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 255;
/// Times that a session may be recovered without finishing a step before it is parked.
pub const RECOVERIES_MAX: u32 = 8;
/// Times that the model is asked again when its final answer is not of `output_schema`.
pub const OUTPUT_REPAIRS_MAX: u32 = 2;

/// Workspaces of one store (and so of whose rates a server keeps in mind), and characters of a workspace's name.
pub const WORKSPACES_MAX: u64 = 10_000;
pub const WORKSPACE_NAME_CHARS_MAX: usize = 64;
/// API keys of one workspace, those that were revoked included.
pub const KEYS_PER_WORKSPACE_MAX: u64 = 10_000;
/// The time of a key's last use is written again after so long, in milliseconds.
pub const KEY_USED_GRAIN_MS: u64 = 600_000;
/// Longest key or token that is looked at, in bytes.
pub const BEARER_BYTES_MAX: usize = 16 << 10;
/// Bytes of an OIDC issuer's discovery document and of its key set, and keys in it.
pub const OIDC_DISCOVERY_BYTES_MAX: usize = 64 << 10;
pub const OIDC_JWKS_BYTES_MAX: usize = 256 << 10;
pub const OIDC_KEYS_MAX: usize = 64;
/// How long an issuer may take to answer, in milliseconds.
pub const OIDC_FETCH_MS: u64 = 5_000;
/// Keys of an issuer are fetched again when they are so old, in milliseconds.
pub const OIDC_FRESH_MS: u64 = 3_600_000;
/// Keys of an issuer that cannot be reached are trusted for so long, in milliseconds.
pub const OIDC_STALE_MS: u64 = 24 * 3_600_000;
/// Least time between two fetches that unknown keys or failures cause, in milliseconds.
pub const OIDC_REFETCH_MS: u64 = 10_000;
/// How far an issuer's clock may be from ours, in seconds.
pub const OIDC_LEEWAY_S: i64 = 60;

/// Defaults of what one workspace may ask for: requests in a second, and at once after a silence.
pub const REQUESTS_PER_SECOND_DEFAULT: u32 = 5_000;
pub const REQUESTS_BURST_DEFAULT: u32 = 20_000;
/// Turns that run, sessions that are alive, streams that are open: of one workspace at the same time.
pub const WORKSPACE_TURNS_DEFAULT: usize = 2_048;
pub const WORKSPACE_SESSIONS_DEFAULT: usize = 3_072;
pub const WORKSPACE_STREAMS_DEFAULT: usize = 3_072;

/// Entries that wait to be written to the audit log, and that are written at once.
pub const AUDIT_QUEUED_MAX: usize = 8_192;
pub const AUDIT_PER_WRITE_MAX: usize = 256;
/// Refused requests that are recorded in a second, and at once after a silence; the others are counted.
pub const AUDIT_REFUSALS_PER_SECOND: u32 = 20;
pub const AUDIT_REFUSALS_BURST: u32 = 200;
/// How long entries of the audit log are kept, in days, and entries that one sweep deletes at once.
pub const AUDIT_RETENTION_DAYS_DEFAULT: u64 = 400;
pub const AUDIT_RETENTION_DAYS_MAX: u64 = 36_500;
pub const AUDIT_DELETED_AT_ONCE: usize = 1_000;

/// Files, and bytes of all of them, of one session that is copied or archived; levels and bytes of one path.
pub const FILES_MAX: u64 = 1_000_000;
pub const FILES_BYTES_MAX: u64 = 64 << 30;
pub const FILE_DEPTH_MAX: usize = 128;
pub const FILE_PATH_BYTES_MAX: usize = 4_096;
/// Characters of a reason: for a redaction, or of what became of a connection.
pub const REASON_CHARS_MAX: usize = 1_000;
/// Bytes of an archive that is imported, unpacked, and of its manifest.
pub const ARCHIVE_BYTES_MAX: u64 = FILES_BYTES_MAX + (4 << 30);
pub const ARCHIVE_MANIFEST_BYTES_MAX: u64 = 16 << 20;
/// Orders of events that a replay keeps in mind at the same time.
pub const REPLAY_WORLDS_MAX: usize = 256;

/// Defaults of a turn's limits; all of them finite.
pub const TURN_STEPS_DEFAULT: u32 = 200;
pub const TURN_STEPS_MAX: u32 = 10_000;
pub const TURN_OUTPUT_TOKENS_DEFAULT: u64 = 1_000_000;
pub const TURN_SECONDS_DEFAULT: u64 = 4 * 3_600;
pub const TURN_SECONDS_MAX: u64 = 7 * 24 * 3_600;

/// Defaults of a room.
pub const ROOM_MEMORY_BYTES_DEFAULT: u64 = 2 << 30;
pub const ROOM_PIDS_DEFAULT: u64 = 512;
pub const ROOM_OPEN_FILES_DEFAULT: u64 = 4_096;
pub const ROOM_FILE_BYTES_DEFAULT: u64 = 8 << 30;
pub const ROOM_CPU_MILLIS_DEFAULT: u64 = 2_000;
pub const ROOM_DISK_BYTES_DEFAULT: u64 = 10 << 30;
pub const ROOM_IO_BYTES_PER_SECOND_DEFAULT: u64 = 1 << 30;
pub const ROOM_OUTPUT_BYTES_DEFAULT: u64 = 256 << 20;
pub const ROOM_CALL_SECONDS_DEFAULT: u64 = 3_600;
/// Longest that an environment may allow one tool call.
pub const ROOM_CALL_SECONDS_MAX: u64 = 3_600;

/// Times between two looks at what a session has on disk while its room is at work: the first and shortest, and the longest,
/// in milliseconds. Between them, it is so many times as long as a look takes.
pub const DISK_LOOK_EVERY_MS: u64 = 1_000;
pub const DISK_LOOK_EVERY_MS_MAX: u64 = 60_000;
pub const DISK_LOOK_REST: u32 = 20;
/// Looks at the same time, over all sessions.
pub const DISK_LOOKS_MAX: usize = 4;
/// Entries that one look counts. A session that has more counts as full.
pub const DISK_LOOK_ENTRIES_MAX: u64 = 4_000_000;

/// Rooms without a session that a host keeps ready, and as many directories for new sessions.
pub const ROOMS_PARKED_MAX: usize = 4;
/// Rooms that live already and wait for a session: as many as there may be of all shapes, as few as there are of the usual one,
/// and of how many shapes.
pub const ROOMS_WAITING_MAX: usize = 16;
pub const ROOMS_WAITING_MIN: usize = 2;
pub const ROOM_SHAPES_MAX: usize = 4;
/// How long after the last session that wanted such a room their number halves, and when a shape is forgotten, in milliseconds.
pub const ROOMS_WAITING_HALVE_MS: u64 = 30_000;
pub const ROOM_SHAPE_FORGET_MS: u64 = 300_000;
/// What a virtual machine has besides what its room may use: for its kernel and its first process; and what its VMM has besides the
/// machine's memory.
pub const MACHINE_MEMORY_BYTES: u64 = 128 << 20;
pub const VMM_MEMORY_BYTES: u64 = 384 << 20;
/// A virtual machine that has not come up after so many milliseconds is ended and begun again, so many times in all.
pub const MACHINE_BOOT_MS: u64 = 45_000;
pub const MACHINE_BOOTS_MAX: u32 = 5;
/// What a virtual machine may take to be given its session, and how many are tried: in software a copy now and then does not go on.
pub const MACHINE_BIND_MS: u64 = 15_000;
pub const MACHINE_BINDS_MAX: u32 = 3;
/// What a virtual machine may take to answer what else it was told, and to go when its cell has ended, in milliseconds.
pub const MACHINE_ANSWER_MS: u64 = 60_000;
pub const MACHINE_END_MS: u64 = 15_000;
/// Lines that one guest may have in the host's log.
pub const MACHINE_LOGS_MAX: u32 = 100;
/// Templates of virtual machines that a host keeps; the one that was not wanted for longest gives way.
pub const TEMPLATES_MAX: usize = 8;
/// How long a template that could not be made is not tried again, in milliseconds.
pub const TEMPLATE_PAUSE_MS: u64 = 60_000;
/// Virtual machines that live already and wait for a session.
pub const MACHINES_WAITING_MAX: usize = 2;
/// Bytes of the note beside a suspended machine.
pub const SUSPENSION_BYTES_MAX: u64 = 1 << 20;
/// How long a cell whose host is gone waits for another one before it ends, in seconds.
pub const ROOM_ORPHAN_SECONDS_DEFAULT: u64 = 600;
/// Hosts whose connections wait for one cell to take them.
pub const CELL_HOSTS_WAITING_MAX: i32 = 8;
/// Connections to the world that wait for the server to take them, of one room; its stub waits with more.
pub const OUTLET_WAITING_MAX: i32 = 128;

/// A virtual machine's first process: connections to the world that it holds at the same time, of which each may have a window of the
/// link in its memory; workers for a session's files; bytes that it has to say while its host does not read.
pub const GUEST_OUTLETS_MAX: usize = 64;
pub const GUEST_WORKERS_MAX: usize = 4;
pub const GUEST_WORDS_BYTES_MAX: usize = 256 << 10;
/// A session's disk with less space for users than this is full: nothing of use fits there any more.
pub const GUEST_DISK_FREE_BYTES_MIN: u64 = 64 << 10;
/// How long a machine whose room has ended may take to say so, in milliseconds.
pub const GUEST_ENDING_MS: u64 = 5_000;

/// Characters of a vault's or a credential's name.
pub const VAULT_NAME_CHARS_MAX: usize = 255;
/// Vaults that a session is given.
pub const SESSION_VAULTS_MAX: usize = 50;
/// Credentials of one vault that are not archived.
pub const CREDENTIALS_MAX: usize = 20;
/// Bytes of a secret.
pub const SECRET_BYTES_MAX: usize = 16 << 10;
/// Characters of the name of the variable that a secret stands for.
pub const SECRET_NAME_CHARS_MAX: usize = 128;
/// Hosts that one credential names.
pub const CREDENTIAL_HOSTS_MAX: usize = 16;
/// Characters of the shortest placeholder: as short as it can be and never stand somewhere by chance.
pub const PLACEHOLDER_CHARS_MIN: usize = 20;
/// Bytes of the shortest secret that is masked in what comes back: a shorter one stands in texts by chance.
pub const MASKED_SECRET_BYTES_MIN: usize = 8;
/// How long an opened vault is taken for what the store holds, in milliseconds; changes made by this process show at once.
pub const OPENED_VAULT_MS: u64 = 5_000;
/// Opened vaults, and sessions' views of them, that one process keeps.
pub const OPENED_VAULTS_MAX: usize = 256;
pub const OPENED_SESSIONS_MAX: usize = 1_024;
/// Secrets of one vault that stay masked after they were rotated, archived or deleted, and for how long after somebody looked at the
/// vault last, in milliseconds.
pub const FORMER_SECRETS_MAX: usize = 64;
pub const FORMER_SECRETS_MS: u64 = 24 * 3_600_000;
/// Data keys that are read at a time while they are wrapped anew.
pub const DATA_KEYS_PER_READ: usize = 256;
/// Times that a change of a credential is tried when its secret is changed by somebody else meanwhile.
pub const CREDENTIAL_TRIES_MAX: u32 = 8;

/// Model requests: attempts in all, first wait and longest wait, in milliseconds.
pub const MODEL_ATTEMPTS_MAX: u32 = 6;
pub const MODEL_BACKOFF_FIRST_MS: u64 = 500;
pub const MODEL_BACKOFF_MAX_MS: u64 = 60_000;
/// A provider that sends no byte for this long is given up, in milliseconds.
pub const MODEL_SILENCE_MS: u64 = 300_000;
/// Output tokens asked of a model when the caller names no number.
pub const MODEL_MAX_TOKENS_DEFAULT: u64 = 16_384;

/// Images: layers of one; bytes of all its layers as they are fetched, and unpacked; entries of one layer. Levels and bytes of a
/// path are those of sessions' files.
pub const IMAGE_LAYERS_MAX: usize = 128;
pub const IMAGE_PACKED_BYTES_MAX: u64 = 16 << 30;
pub const IMAGE_UNPACKED_BYTES_MAX: u64 = 32 << 30;
pub const IMAGE_ENTRIES_MAX: u64 = 1_000_000;
/// Bytes of an image's manifest, index or configuration, and entries of an archive that holds one.
pub const IMAGE_DOCUMENT_BYTES_MAX: u64 = 4 << 20;
pub const IMAGE_ARCHIVE_ENTRIES_MAX: usize = 4_096;
/// Variables that an image sets for programs, and bytes of all of them.
pub const IMAGE_VARIABLES_MAX: usize = 256;
pub const IMAGE_VARIABLES_BYTES_MAX: usize = 32 << 10;
/// Characters of an image's reference, and of the path of a directory or an archive on the host.
pub const IMAGE_REFERENCE_CHARS_MAX: usize = 512;
pub const ROOT_PATH_CHARS_MAX: usize = 4_096;
/// References whose digests a host remembers; the one that was not wanted for longest gives way.
pub const IMAGE_PINS_MAX: usize = 1_024;
/// Images that are fetched or unpacked at the same time; more wait.
pub const IMAGES_AT_WORK_MAX: usize = 2;
/// How long a registry may take for one document, in milliseconds; bytes of a token or an error that it gives; and addresses to which it
/// sends on, one after the other.
pub const IMAGE_DOCUMENT_MS: u64 = 300_000;
pub const REGISTRY_WORDS_BYTES_MAX: usize = 64 << 10;
pub const REGISTRY_REDIRECTS_MAX: usize = 10;
/// A registry that sends no byte for this long is given up, in milliseconds.
pub const REGISTRY_SILENCE_MS: u64 = 60_000;
/// How long a layer stays that nothing refers to, so that whoever was just given it can start a room; and how long an image stays
/// that nobody wants, in milliseconds.
pub const LAYER_GRACE_MS: u64 = 3_600_000;
pub const IMAGE_UNUSED_MS: u64 = 30 * 24 * 3_600_000;
/// Packages of one manager in an environment, and characters of each.
pub const PACKAGES_MAX: usize = 256;
pub const PACKAGE_CHARS_MAX: usize = 256;
/// Installations of packages at the same time; more wait.
pub const PACKAGE_BUILDS_MAX: usize = 2;
/// What one installation may take: seconds, and bytes on disk; twice the layer, as it is packed before it is taken.
pub const PACKAGES_SECONDS_MAX: u64 = 1_800;
pub const PACKAGES_DISK_BYTES_MAX: u64 = 16 << 30;
pub const PACKAGES_FILE_BYTES_MAX: u64 = 8 << 30;
/// How long what could not be installed is not tried again, in milliseconds, and how many failures are remembered.
pub const PACKAGES_PAUSE_MS: u64 = 180_000;
pub const PACKAGES_FAILED_MAX: usize = 256;
/// Bytes that are kept of the log of an installation, lines of it that an error repeats, and logs that are kept.
pub const PACKAGES_LOG_BYTES_MAX: u64 = 4 << 20;
pub const PACKAGES_LOG_LINES: usize = 12;
pub const PACKAGES_LOGS_MAX: usize = 256;
/// Bytes of the host's list of installed packages.
pub const PACKAGES_STATUS_BYTES_MAX: u64 = 64 << 20;

/// Connections that one room, and all rooms together, may have open through egress at the same time.
pub const EGRESS_CONNECTIONS_PER_SESSION_MAX: usize = 256;
pub const EGRESS_CONNECTIONS_MAX: usize = 16_384;
/// A connection on which nothing moves for this long is closed, in milliseconds.
pub const EGRESS_IDLE_MS: u64 = 600_000;
/// Time to resolve a name, to reach one of its addresses, and for a TLS handshake, in milliseconds.
pub const EGRESS_RESOLVE_MS: u64 = 10_000;
pub const EGRESS_CONNECT_MS: u64 = 10_000;
pub const EGRESS_HANDSHAKE_MS: u64 = 20_000;
/// Addresses of one name that are tried.
pub const EGRESS_ADDRESSES_MAX: usize = 8;
/// How long a refused connection waits for a request to answer with the reason, in milliseconds.
pub const EGRESS_REFUSAL_MS: u64 = 10_000;
/// Bytes in each direction that a blind tunnel holds.
pub const EGRESS_TUNNEL_BYTES: usize = 32 << 10;
/// Bytes of a TLS hello.
pub const EGRESS_HELLO_BYTES_MAX: usize = 32 << 10;
/// Requests at the same time on one HTTP/2 connection; bytes that one of them, and all together, hold in each direction.
pub const EGRESS_STREAMS_MAX: u32 = 100;
pub const EGRESS_STREAM_BYTES: u32 = 256 << 10;
pub const EGRESS_STREAMS_BYTES: u32 = 1 << 20;
/// Bytes of a request's body that are held to give it a new length when a secret is not as long as its placeholder; a longer
/// body is sent in chunks.
pub const EGRESS_BODY_HELD_BYTES_MAX: usize = 64 << 10;
/// Leaf certificates that are kept, and how long one is valid, in milliseconds.
pub const EGRESS_LEAVES_MAX: usize = 1_024;
pub const EGRESS_LEAF_MS: u64 = 48 * 3_600_000;
/// Bytes of one chunk of a body that is signed chunk by chunk.
pub const EGRESS_SIGNED_CHUNK_BYTES_MAX: usize = 4 << 20;

/// Bytes of a kernel or a module of machines, unpacked, and of a package that brings them, packed.
pub const GUEST_PART_BYTES_MAX: u64 = 1 << 30;
/// Entries of a base disk.
pub const GUEST_BASE_ENTRIES_MAX: usize = 2_000_000;
/// Layers that a base disk is put together of: those of an image.
pub const GUEST_BASE_LAYERS_MAX: usize = IMAGE_LAYERS_MAX;

/// The link to a virtual machine: bytes of one frame; bytes that one direction of one stream may be ahead of its reader; streams that
/// one side may have opened at the same time; bytes that wait to be sent (a little more where many streams end at once).
pub const LINK_FRAME_BYTES_MAX: usize = 64 << 10;
pub const LINK_WINDOW_BYTES: u32 = 256 << 10;
pub const LINK_STREAMS_MAX: usize = 1_024;
pub const LINK_OUTPUT_BYTES_MAX: usize = 256 << 10;
/// A guest is asked for a sign of life this often, and given up when it gives none for so long, in milliseconds. Emulation is slow.
pub const LINK_PING_MS: u64 = 15_000;
pub const LINK_PATIENCE_MS: u64 = 60_000;
/// A guest that neither takes nor gives any byte of a session's files for this long is given up, in milliseconds.
pub const LINK_FILES_SILENCE_MS: u64 = 300_000;
/// Messages about a machine that wait for its host, or for the machine.
pub const LINK_MESSAGES_MAX: usize = 64;
/// Bytes of one message about a machine.
pub const LINK_MESSAGE_BYTES_MAX: usize = 1 << 20;
/// How long a virtual machine's monitor may take to start, to answer an order, and to write a machine to disk, in milliseconds.
pub const MACHINE_STARTS_MS: u64 = 20_000;
pub const QMP_ANSWER_MS: u64 = 20_000;
pub const MACHINE_SUSPEND_MS: u64 = 120_000;
/// Bytes of one line of such a monitor.
pub const QMP_LINE_BYTES_MAX: u64 = 256 << 10;
/// Descriptors and threads that one may have.
pub const MACHINE_OPEN_FILES: u64 = 256;
pub const MACHINE_THREADS_MAX: u64 = 160;
/// What is kept of a machine's console, and of its monitor's error output: the last bytes. And how long is waited for them when a
/// start has failed, in milliseconds.
pub const MACHINE_LAST_WORDS_BYTES_MAX: usize = 16 << 10;
pub const MACHINE_LAST_WORDS_MS: u64 = 1_000;
/// Templates of machines whose memory a host holds for copies to share; more are read again.
pub const TEMPLATES_HELD_MAX: usize = 8;
/// How long a kernel may take to come up before KVM is believed not to work, and QEMU to say its version, in milliseconds.
pub const KVM_TRIAL_MS: u64 = 5_000;
pub const QEMU_VERSION_MS: u64 = 10_000;
