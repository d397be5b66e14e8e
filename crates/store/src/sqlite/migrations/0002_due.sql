-- When somebody must own a session, instead of whether: 0 is now, NULL is never. Timers that were set before this have lost
-- their time; their sessions are taken up at once.
ALTER TABLE journals ADD COLUMN due_at INTEGER;
UPDATE journals SET due_at = 0 WHERE needs_owner = 1;
DROP INDEX journals_in_need;
ALTER TABLE journals DROP COLUMN needs_owner;
CREATE INDEX journals_due ON journals (due_at, session) WHERE due_at IS NOT NULL;

-- A session that was made for nobody had a lease of nobody.
DELETE FROM leases WHERE owner = '';
