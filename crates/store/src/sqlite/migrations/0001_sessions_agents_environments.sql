-- Times are microseconds since the Unix epoch. JSON is what serde writes of the domain's types.

-- What a session is found by. Small, because its status is rewritten with every turn.
CREATE TABLE sessions (
    -- Never given twice, so that a stale key cannot name another session's rows.
    key           INTEGER PRIMARY KEY AUTOINCREMENT,
    id            TEXT    NOT NULL UNIQUE,
    workspace     TEXT    NOT NULL,
    agent         TEXT,
    agent_version INTEGER NOT NULL,
    environment   TEXT,
    status        TEXT    NOT NULL,
    -- Whether `archived_at` is there, as a leading column of the indexes.
    archived      INTEGER NOT NULL,
    created_at    INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    archived_at   INTEGER
) STRICT;
CREATE INDEX sessions_by_status ON sessions (workspace, archived, status, created_at, id, agent_version);
CREATE INDEX sessions_by_agent  ON sessions (workspace, agent, archived, status, created_at, id, agent_version);

-- What a session was made from. Large, and changed by callers only.
CREATE TABLE definitions (
    session  INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    title    TEXT,
    metadata TEXT NOT NULL,
    agent    TEXT NOT NULL,
    room     TEXT NOT NULL
) STRICT;

-- Where each journal stands. Rewritten with every append, in the same transaction as the entries.
CREATE TABLE journals (
    session     INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    epoch       INTEGER NOT NULL,
    last_seq    INTEGER NOT NULL,
    last_hash   BLOB    NOT NULL,
    needs_owner INTEGER NOT NULL,
    fold        TEXT    NOT NULL
) STRICT;
CREATE INDEX journals_in_need ON journals (session) WHERE needs_owner = 1;

-- Only sessions that somebody holds have a row, so that renewing all leases of a process touches few pages.
CREATE TABLE leases (
    session INTEGER PRIMARY KEY REFERENCES sessions ON DELETE CASCADE,
    owner   TEXT    NOT NULL,
    until   INTEGER NOT NULL
) STRICT;

-- The journals' entries, clustered by session and seq: `place` is `session << 32 | seq`.
CREATE TABLE events (
    place   INTEGER PRIMARY KEY,
    id      TEXT    NOT NULL,
    kind    TEXT    NOT NULL,
    at      INTEGER NOT NULL,
    hash    BLOB    NOT NULL,
    -- SHA-256 of the payload as it was written; kept only where the payload is not that any more (redaction).
    digest  BLOB,
    payload TEXT    NOT NULL
) STRICT;
-- Ids sort by time of creation, so that all sessions write to the same few pages of this index.
CREATE UNIQUE INDEX events_once ON events (id, place >> 32);

CREATE TABLE agents (
    key         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    workspace   TEXT    NOT NULL,
    -- The latest.
    version     INTEGER NOT NULL,
    archived    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    archived_at INTEGER
) STRICT;
CREATE INDEX agents_by_time ON agents (workspace, archived, created_at, id);

CREATE TABLE agent_versions (
    agent      INTEGER NOT NULL REFERENCES agents ON DELETE CASCADE,
    version    INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    spec       TEXT    NOT NULL,
    UNIQUE (agent, version)
) STRICT;

CREATE TABLE environments (
    key         INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT    NOT NULL UNIQUE,
    workspace   TEXT    NOT NULL,
    archived    INTEGER NOT NULL,
    created_at  INTEGER NOT NULL,
    body        TEXT    NOT NULL
) STRICT;
CREATE INDEX environments_by_time ON environments (workspace, archived, created_at, id);

-- Requests that were done, for the window in which they may be repeated.
CREATE TABLE once (
    workspace TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    digest    TEXT    NOT NULL,
    reference TEXT    NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (workspace, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX once_by_time ON once (at);
