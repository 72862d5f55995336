-- Resources that the sweep found under the name of an instance that is recorded as another one, or is gone. They wait for
-- the next pass of their connection, which deletes them.
CREATE TABLE twins (
    id            TEXT COLLATE "C" PRIMARY KEY,
    twin_of       TEXT COLLATE "C" NOT NULL,
    connection_id TEXT COLLATE "C" NOT NULL,
    cloud_id      TEXT COLLATE "C" NOT NULL,
    doc           TEXT COLLATE "C" NOT NULL,
    retired_at    BIGINT
);
CREATE INDEX twins_connection ON twins (connection_id);
CREATE UNIQUE INDEX twins_live ON twins (twin_of, cloud_id) WHERE retired_at IS NULL;

-- Connections that are gone: what a pass needs if something of theirs turns up in a cloud later. Nobody else reads them.
-- Without due_at there is nothing to do.
CREATE TABLE gone_connections (
    id                    TEXT COLLATE "C" PRIMARY KEY,
    project               TEXT COLLATE "C" NOT NULL,
    kind                  TEXT COLLATE "C" NOT NULL,
    generation            BIGINT NOT NULL,
    observed_generation   BIGINT NOT NULL,
    last_operation_id     TEXT COLLATE "C" NOT NULL,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    deletion_requested_at BIGINT,
    gone_at               BIGINT NOT NULL,
    lease_epoch           BIGINT NOT NULL,
    lease_owner           TEXT COLLATE "C",
    lease_until           BIGINT,
    fenced_at             BIGINT,
    due_at                BIGINT,
    wake                  BIGINT NOT NULL DEFAULT 0,
    failures              BIGINT NOT NULL DEFAULT 0,
    last_progress_at      BIGINT NOT NULL,
    ready_at              BIGINT GENERATED ALWAYS AS
                          (CASE WHEN due_at IS NULL THEN NULL WHEN lease_until > due_at THEN lease_until ELSE due_at END)
                          STORED,
    intent                TEXT COLLATE "C" NOT NULL,
    negotiated            TEXT COLLATE "C" NOT NULL,
    status                TEXT COLLATE "C" NOT NULL
);
CREATE INDEX gone_connections_ready ON gone_connections (ready_at) WHERE ready_at IS NOT NULL;
CREATE INDEX gone_connections_age ON gone_connections (gone_at);
