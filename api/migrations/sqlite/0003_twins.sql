-- Resources that the sweep found under the name of an instance that is recorded as another one, or is gone. They wait for
-- the next pass of their connection, which deletes them.
CREATE TABLE twins (
    id            TEXT PRIMARY KEY,
    twin_of       TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    cloud_id      TEXT NOT NULL,
    doc           TEXT NOT NULL,
    retired_at    INTEGER
) STRICT;
CREATE INDEX twins_connection ON twins (connection_id);
CREATE UNIQUE INDEX twins_live ON twins (twin_of, cloud_id) WHERE retired_at IS NULL;

-- Connections that are gone: what a pass needs if something of theirs turns up in a cloud later. Nobody else reads them.
-- Without due_at there is nothing to do.
CREATE TABLE gone_connections (
    id                    TEXT PRIMARY KEY,
    project               TEXT NOT NULL,
    kind                  TEXT NOT NULL,
    generation            INTEGER NOT NULL,
    observed_generation   INTEGER NOT NULL,
    last_operation_id     TEXT NOT NULL,
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL,
    deletion_requested_at INTEGER,
    gone_at               INTEGER NOT NULL,
    lease_epoch           INTEGER NOT NULL,
    lease_owner           TEXT,
    lease_until           INTEGER,
    fenced_at             INTEGER,
    due_at                INTEGER,
    wake                  INTEGER NOT NULL DEFAULT 0,
    failures              INTEGER NOT NULL DEFAULT 0,
    last_progress_at      INTEGER NOT NULL,
    ready_at              INTEGER GENERATED ALWAYS AS
                          (CASE WHEN due_at IS NULL THEN NULL WHEN lease_until > due_at THEN lease_until ELSE due_at END)
                          STORED,
    intent                TEXT NOT NULL,
    negotiated            TEXT NOT NULL,
    status                TEXT NOT NULL
) STRICT;
CREATE INDEX gone_connections_ready ON gone_connections (ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX gone_connections_age ON gone_connections (gone_at);
