-- Secrets lie here sealed under their vault's data key, and data keys under a master key, which is never here.
CREATE TABLE vaults (
    key        INTEGER PRIMARY KEY AUTOINCREMENT,
    id         TEXT    NOT NULL UNIQUE,
    workspace  TEXT    NOT NULL,
    archived   INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    body       TEXT    NOT NULL
) STRICT;
CREATE INDEX vaults_by_time ON vaults (workspace, archived, created_at, id);

CREATE TABLE credentials (
    key               INTEGER PRIMARY KEY AUTOINCREMENT,
    id                TEXT    NOT NULL UNIQUE,
    vault             INTEGER NOT NULL REFERENCES vaults ON DELETE CASCADE,
    archived          INTEGER NOT NULL,
    created_at        INTEGER NOT NULL,
    -- Variable or server that it is for; NULL, and free, once it is archived.
    name              TEXT,
    body              TEXT    NOT NULL,
    version           INTEGER NOT NULL,
    placeholder_chars INTEGER NOT NULL,
    -- NULL once it is archived.
    sealed            BLOB
) STRICT;
CREATE INDEX credentials_by_time ON credentials (vault, archived, created_at, id);
CREATE UNIQUE INDEX credentials_by_name ON credentials (vault, name) WHERE name IS NOT NULL;

-- One for each vault that is not archived, and one of the house, whose owner is 0.
CREATE TABLE data_keys (
    owner  INTEGER PRIMARY KEY,
    -- Id of the master key that wraps it.
    master TEXT NOT NULL,
    bytes  BLOB NOT NULL
) STRICT;
CREATE INDEX data_keys_by_master ON data_keys (master);

-- Ids of the vaults that a session may use, in order.
ALTER TABLE definitions ADD COLUMN vaults TEXT NOT NULL DEFAULT '[]';
