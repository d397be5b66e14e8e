//! Who may use whom, and why. The only list of its kind: add a row here before an edge in a Cargo.toml.

/// From, to, reason.
pub const EDGES: &[(&str, &str, &str)] = &[
    ("loopd-agent-loop", "loopd-domain", "the loop speaks in the words of the domain"),
    ("loopd-protocol", "loopd-domain", "frames carry ids and content"),
    ("loopd-protocol", "loopd-agent-loop", "frames carry the loop's inputs and commands"),
    ("loopd-policy", "loopd-domain", "decisions are about tools and permissions"),
    ("loopd-telemetry", "loopd-domain", "spans are a fold of events"),
    ("loopd-models", "loopd-domain", "requests and answers are conversations of the domain"),
    ("loopd-host-tools", "loopd-domain", "a call's input, result and class are words of the domain"),
    ("loopd-host-tools", "loopd-policy", "host patterns have one meaning"),
    ("loopd-broker", "loopd-domain", "credentials, hosts and audit entries are words of the domain"),
    ("loopd-broker", "loopd-policy", "whether a connection may be made is decided there"),
    ("loopd-broker", "loopd-store", "vaults lie sealed in the store; through the port"),
    ("loopd-store", "loopd-domain", "what is stored are the domain's nouns"),
    ("loopd-files", "loopd-domain", "how many files and bytes a session may have"),
    ("loopd-sandbox", "loopd-files", "a session's files go in and out; and from there to whoever uses the port"),
    ("loopd-sandbox", "loopd-domain", "a room belongs to a session and has limits"),
    ("loopd-sandbox", "loopd-protocol", "the channel to a cell has a fixed file descriptor"),
    ("loopd-sandbox", "loopd-jail", "the launcher's orders have one definition"),
    ("loopd-images", "loopd-domain", "sources of roots and their limits are words of the domain"),
    ("loopd-images", "loopd-sandbox", "what an image becomes is the root of a room"),
    ("loopd-guest-image", "loopd-domain", "what grows has its limits there"),
    ("loopd-sandbox", "loopd-guest-image", "machines of rooms are made of it"),
    ("loopd-cell", "loopd-domain", "results are content of the domain"),
    ("loopd-cell", "loopd-agent-loop", "the loop runs in the cell"),
    ("loopd-cell", "loopd-protocol", "the cell's half of the frames"),
    ("loopd-guest", "loopd-domain", "what waits in a guest has the limits of the domain"),
    ("loopd-guest", "loopd-files", "a session's files are read and written in the guest"),
    ("loopd-guest", "loopd-protocol", "the guest's end of the link, and its half of the messages"),
    ("loopd-guest", "loopd-jail", "the launcher's orders have one definition"),
    ("loopd-session", "loopd-domain", "sessions are nouns of the domain"),
    ("loopd-session", "loopd-agent-loop", "the driver answers the loop's commands"),
    ("loopd-session", "loopd-protocol", "the host's half of the frames"),
    ("loopd-session", "loopd-policy", "each call is decided before it runs"),
    ("loopd-session", "loopd-models", "the driver calls the model; through the port"),
    ("loopd-session", "loopd-host-tools", "the driver sends the host's calls; through the port"),
    ("loopd-session", "loopd-sandbox", "the driver holds the room; through the port"),
    ("loopd-session", "loopd-images", "a room's root is had before the room is made"),
    ("loopd-session", "loopd-store", "the driver writes the journal; through the port"),
    (
        "loopd-session",
        "loopd-broker",
        "the driver serves its room's outlet, and masks what comes back; through the port",
    ),
    ("loopd-server", "loopd-broker", "the vaults' interface, and the audit log"),
    ("loopd", "loopd-broker", "composition root: which master key, which way out"),
    ("loopd-server", "loopd-domain", "the wire is a projection of the domain"),
    ("loopd-server", "loopd-images", "GET /v1/images, and what else the operator asks of them"),
    ("loopd-server", "loopd-session", "the door to all sessions"),
    ("loopd-server", "loopd-store", "agents and environments are rows; through the port"),
    ("loopd-server", "loopd-models", "GET /v1/models, and which models are known"),
    ("loopd-server", "loopd-telemetry", "GET /v1/sessions/{id}/trace"),
    ("loopd", "loopd-domain", "composition root: clock and ids"),
    ("loopd", "loopd-host-tools", "composition root: where tools may go"),
    ("loopd", "loopd-images", "composition root: which roots the operator allows"),
    ("loopd", "loopd-guest-image", "`loopd image build` builds one"),
    ("loopd", "loopd-models", "composition root: which providers are configured"),
    ("loopd", "loopd-policy", "composition root: which addresses rooms may reach"),
    ("loopd", "loopd-sandbox", "composition root: which rooms"),
    ("loopd", "loopd-server", "composition root: the interface to serve"),
    ("loopd", "loopd-session", "composition root: the sessions to serve"),
    ("loopd", "loopd-store", "composition root: which store"),
    ("loopd", "loopd-telemetry", "`loopd trace` prints a trace"),
];

/// Crates that open nothing and read no clock.
pub const PURE: &[&str] = &["loopd-domain", "loopd-agent-loop", "loopd-protocol", "loopd-policy"];

/// What pure crates may use of others: data, and nothing that opens anything. `chrono` is built without its clock.
pub const PURE_USES: &[&str] = &["serde", "serde_json", "thiserror", "chrono", "sha2", "url"];

/// Crates that stand outside the house and may use any room. No room may use them.
pub const OUTSIDE: &[&str] = &["loopd-tests", "loopd-crash", "loopd-fuzz", "loopd-bench"];
