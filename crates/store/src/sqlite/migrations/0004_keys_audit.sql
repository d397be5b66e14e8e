CREATE TABLE workspaces (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL UNIQUE,
    created_at INTEGER NOT NULL
) STRICT;
INSERT INTO workspaces (id, name, created_at) VALUES ('wrkspc_default', 'default', 0);

-- Never a key itself: what it is known by, and its first characters for people.
CREATE TABLE api_keys (
    key          INTEGER PRIMARY KEY AUTOINCREMENT,
    id           TEXT    NOT NULL UNIQUE,
    workspace    TEXT    NOT NULL REFERENCES workspaces (id),
    -- Whether it was revoked, as a leading column of the index.
    archived     INTEGER NOT NULL,
    created_at   INTEGER NOT NULL,
    digest       BLOB    NOT NULL UNIQUE,
    name         TEXT    NOT NULL,
    hint         TEXT    NOT NULL,
    scopes       TEXT    NOT NULL,
    created_by   TEXT    NOT NULL,
    expires_at   INTEGER,
    revoked_at   INTEGER,
    last_used_at INTEGER
) STRICT;
CREATE INDEX api_keys_by_time ON api_keys (workspace, archived, created_at, id);

CREATE TABLE audit (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    workspace  TEXT    NOT NULL,
    created_at INTEGER NOT NULL,
    actor      TEXT    NOT NULL,
    action     TEXT    NOT NULL,
    resource   TEXT    NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_time     ON audit (workspace, created_at, id);
CREATE INDEX audit_by_actor    ON audit (workspace, actor, created_at, id);
CREATE INDEX audit_by_action   ON audit (workspace, action, created_at, id);
CREATE INDEX audit_by_resource ON audit (workspace, resource, created_at, id);
-- For the sweep: entries leave by age alone.
CREATE INDEX audit_by_age      ON audit (created_at);
CREATE TRIGGER audit_is_append_only BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
