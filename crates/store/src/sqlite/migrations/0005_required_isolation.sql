-- The weakest kind of room that sessions of the workspace may have.
ALTER TABLE workspaces ADD COLUMN require_isolation TEXT NOT NULL DEFAULT 'namespaces';
