-- A connection that is shared with a peer of the open specification: with whom, the UUID that both know it by, and why the
-- protocol ended it. What is agreed stands in the peer's book.
ALTER TABLE connections ADD COLUMN peer TEXT;
ALTER TABLE connections ADD COLUMN shared_uuid TEXT;
ALTER TABLE connections ADD COLUMN ended TEXT;
-- Nothing of such a connection can turn up in a cloud when it is gone; the columns are there so that both tables read alike.
ALTER TABLE gone_connections ADD COLUMN peer TEXT;
ALTER TABLE gone_connections ADD COLUMN shared_uuid TEXT;
ALTER TABLE gone_connections ADD COLUMN ended TEXT;
CREATE UNIQUE INDEX connections_shared ON connections (peer, shared_uuid) WHERE peer IS NOT NULL;

-- Who works on what is due: the engine, or the coordinator.
DROP INDEX connections_ready;
CREATE INDEX connections_ready ON connections (ready_at) WHERE peer IS NULL;
CREATE INDEX connections_ready_shared ON connections (ready_at) WHERE peer IS NOT NULL;
