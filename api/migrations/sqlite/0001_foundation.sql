-- Times are integer milliseconds since 1970-01-01T00:00:00Z, ids are hyphenated lower-case text, documents are JSON text.

CREATE TABLE installation (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id  TEXT NOT NULL
) STRICT;

CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT;
INSERT INTO counters (name, value)
VALUES ('event_cursor', 0), ('event_floor', 0), ('configuration', 0), ('gateway_number', 0);

CREATE TABLE tokens (
    id           TEXT PRIMARY KEY,
    project      TEXT NOT NULL,
    name         TEXT NOT NULL,
    scope        TEXT NOT NULL,
    hash         BLOB NOT NULL UNIQUE,
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,
    deleted_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX tokens_name ON tokens (project, name) WHERE deleted_at IS NULL;

CREATE TABLE audit (
    seq        INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    principal  TEXT NOT NULL,
    request_id TEXT NOT NULL,
    action     TEXT NOT NULL,
    subject    TEXT NOT NULL
) STRICT;
CREATE INDEX audit_subject ON audit (subject, seq);

CREATE TABLE answers (
    principal  TEXT NOT NULL,
    method     TEXT NOT NULL,
    path       TEXT NOT NULL,
    idem_key   TEXT NOT NULL,
    digest     BLOB NOT NULL,
    answer     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (principal, method, path, idem_key)
) STRICT, WITHOUT ROWID;
CREATE INDEX answers_age ON answers (created_at);

CREATE TABLE connections (
    id                    TEXT PRIMARY KEY,
    project               TEXT NOT NULL,
    name                  TEXT NOT NULL,
    environment_id        TEXT NOT NULL,
    a_attach_point_id     TEXT NOT NULL,
    b_attach_point_id     TEXT NOT NULL,
    kind                  TEXT NOT NULL,
    generation            INTEGER NOT NULL,
    observed_generation   INTEGER NOT NULL DEFAULT 0,
    last_operation_id     TEXT NOT NULL,
    created_at            INTEGER NOT NULL,
    updated_at            INTEGER NOT NULL,
    deletion_requested_at INTEGER,
    lease_epoch           INTEGER NOT NULL DEFAULT 0,
    lease_owner           TEXT,
    lease_until           INTEGER,
    fenced_at             INTEGER,
    due_at                INTEGER NOT NULL,
    -- 1: the intent changed since the last claim, so that the release must not put the next pass off.
    wake                  INTEGER NOT NULL DEFAULT 0,
    failures              INTEGER NOT NULL DEFAULT 0,
    last_progress_at      INTEGER NOT NULL,
    -- When it can next be claimed: due, and no lease in the way.
    ready_at              INTEGER NOT NULL GENERATED ALWAYS AS
                          (CASE WHEN lease_until > due_at THEN lease_until ELSE due_at END) STORED,
    intent                TEXT NOT NULL,
    negotiated            TEXT NOT NULL,
    status                TEXT NOT NULL,
    UNIQUE (project, name)
) STRICT;
CREATE INDEX connections_ready ON connections (ready_at);
CREATE INDEX connections_page ON connections (project, id);
CREATE INDEX connections_a ON connections (a_attach_point_id);
CREATE INDEX connections_b ON connections (b_attach_point_id);

CREATE TABLE channel_configurations (
    connection_id TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    channel_id    TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    doc           TEXT NOT NULL,
    retired_at    INTEGER,
    PRIMARY KEY (connection_id, channel_id, generation)
) STRICT;

CREATE TABLE secrets (
    connection_id TEXT NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    channel_id    TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    name          TEXT NOT NULL,
    sealed        BLOB NOT NULL,
    PRIMARY KEY (connection_id, channel_id, generation, name)
) STRICT;

-- A row without free_at is held by its connection. With free_at it is in quarantine (connection_id set) or was seen
-- occupied by others (account_id set), and free from that time on.
CREATE TABLE vlan_allocations (
    port_id       TEXT NOT NULL,
    vlan          INTEGER NOT NULL CHECK (vlan BETWEEN 1 AND 4094),
    connection_id TEXT,
    channel_id    TEXT,
    generation    INTEGER,
    account_id    TEXT,
    free_at       INTEGER,
    PRIMARY KEY (port_id, vlan)
) STRICT;
CREATE INDEX vlan_allocations_owner ON vlan_allocations (connection_id);
CREATE INDEX vlan_allocations_free ON vlan_allocations (free_at) WHERE free_at IS NOT NULL;

-- slot is the IPv4 address shifted right by one: the grid of /31s.
CREATE TABLE subnet_slots (
    attach_point_id TEXT NOT NULL,
    slot            INTEGER NOT NULL,
    subnet          TEXT NOT NULL,
    connection_id   TEXT,
    channel_id      TEXT,
    generation      INTEGER,
    account_id      TEXT,
    free_at         INTEGER,
    PRIMARY KEY (attach_point_id, slot)
) STRICT;
CREATE INDEX subnet_slots_owner ON subnet_slots (connection_id);
CREATE INDEX subnet_slots_free ON subnet_slots (free_at) WHERE free_at IS NOT NULL;

CREATE TABLE channel_bandwidth (
    channel_id    TEXT PRIMARY KEY,
    used_mbps     INTEGER NOT NULL CHECK (used_mbps >= 0),
    capacity_mbps INTEGER NOT NULL,
    CHECK (used_mbps <= capacity_mbps)
) STRICT;
CREATE TABLE bandwidth_shares (
    connection_id TEXT NOT NULL,
    channel_id    TEXT NOT NULL,
    mbps          INTEGER NOT NULL CHECK (mbps > 0),
    PRIMARY KEY (connection_id, channel_id)
) STRICT;

CREATE TABLE instances (
    id            TEXT PRIMARY KEY,
    connection_id TEXT NOT NULL,
    project       TEXT NOT NULL,
    channel_id    TEXT NOT NULL,
    generation    INTEGER NOT NULL,
    side          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    account_id    TEXT NOT NULL,
    cloud_id      TEXT,
    doc           TEXT NOT NULL,
    retired_at    INTEGER
) STRICT;
CREATE INDEX instances_connection ON instances (connection_id);
CREATE UNIQUE INDEX instances_live ON instances (connection_id, channel_id, generation, side, kind)
    WHERE retired_at IS NULL;

CREATE TABLE provider_calls (
    id            TEXT PRIMARY KEY,
    seq           INTEGER NOT NULL,
    instance_id   TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    project       TEXT NOT NULL,
    verb          TEXT NOT NULL,
    identity      TEXT NOT NULL,
    side          TEXT NOT NULL,
    kind          TEXT NOT NULL,
    account_id    TEXT NOT NULL,
    name          TEXT NOT NULL,
    token         TEXT NOT NULL,
    digest        BLOB NOT NULL,
    written_at    INTEGER NOT NULL,
    deadline      INTEGER NOT NULL,
    verdict       TEXT NOT NULL,
    is_open       INTEGER NOT NULL,
    decided_at    INTEGER,
    cloud_id      TEXT,
    request_id    TEXT,
    UNIQUE (connection_id, seq)
) STRICT;
CREATE INDEX provider_calls_instance ON provider_calls (instance_id);

CREATE TABLE operations (
    id            TEXT PRIMARY KEY,
    project       TEXT NOT NULL,
    connection_id TEXT NOT NULL,
    finished_at   INTEGER,
    doc           TEXT NOT NULL
) STRICT;
CREATE INDEX operations_page ON operations (project, id);
CREATE INDEX operations_connection ON operations (connection_id, id);

CREATE TABLE plans (
    id         TEXT PRIMARY KEY,
    project    TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    doc        TEXT NOT NULL,
    request    TEXT NOT NULL
) STRICT;
CREATE INDEX plans_age ON plans (expires_at);

CREATE TABLE events (
    cursor     INTEGER PRIMARY KEY,
    project    TEXT NOT NULL,
    time       INTEGER NOT NULL,
    kind       TEXT NOT NULL,
    subject    TEXT NOT NULL,
    generation INTEGER,
    cause      TEXT NOT NULL,
    data       TEXT NOT NULL
) STRICT;
CREATE INDEX events_project ON events (project, cursor);

CREATE TABLE issues (
    id          TEXT PRIMARY KEY,
    project     TEXT NOT NULL,
    code        TEXT NOT NULL,
    subject     TEXT NOT NULL,
    created_at  INTEGER NOT NULL,
    resolved_at INTEGER,
    doc         TEXT NOT NULL
) STRICT;
CREATE UNIQUE INDEX issues_open ON issues (project, code, subject) WHERE resolved_at IS NULL;
CREATE INDEX issues_page ON issues (project, id);

CREATE TABLE join_tokens (
    id              TEXT PRIMARY KEY,
    project         TEXT NOT NULL,
    gateway_group   TEXT NOT NULL,
    attach_point_id TEXT NOT NULL,
    hash            BLOB NOT NULL UNIQUE,
    expires_at      INTEGER NOT NULL,
    used_at         INTEGER
) STRICT;

CREATE TABLE gateways (
    id                    TEXT PRIMARY KEY,
    project               TEXT NOT NULL,
    number                INTEGER NOT NULL UNIQUE,
    gateway_group         TEXT NOT NULL,
    attach_point_id       TEXT NOT NULL,
    request               TEXT NOT NULL,
    credential_hash       BLOB NOT NULL UNIQUE,
    created_at            INTEGER NOT NULL,
    last_heard_at         INTEGER,
    last_sequence         INTEGER NOT NULL DEFAULT -1,
    configuration_version INTEGER
) STRICT;
CREATE INDEX gateways_page ON gateways (project, id);
CREATE INDEX gateways_attach_point ON gateways (attach_point_id);

CREATE TABLE latest_samples (
    connection_id TEXT NOT NULL,
    gateway_id    TEXT NOT NULL,
    peer_id       TEXT NOT NULL,
    path          TEXT NOT NULL,
    at            INTEGER NOT NULL,
    doc           TEXT NOT NULL,
    PRIMARY KEY (connection_id, gateway_id, peer_id, path)
) STRICT;
CREATE INDEX latest_samples_age ON latest_samples (at);

-- One row a minute and path: sums, and the worst of the minute.
CREATE TABLE sample_minutes (
    connection_id  TEXT NOT NULL,
    gateway_id     TEXT NOT NULL,
    peer_id        TEXT NOT NULL,
    path           TEXT NOT NULL,
    minute         INTEGER NOT NULL,
    sent           INTEGER NOT NULL,
    received       INTEGER NOT NULL,
    rtt_min_us     INTEGER,
    rtt_p99_max_us INTEGER,
    dead_ports_max INTEGER NOT NULL,
    bytes_out      INTEGER NOT NULL,
    bytes_in       INTEGER NOT NULL,
    PRIMARY KEY (connection_id, gateway_id, peer_id, path, minute)
) STRICT;
CREATE INDEX sample_minutes_age ON sample_minutes (minute);

CREATE TABLE shared_leases (
    name        TEXT PRIMARY KEY,
    epoch       INTEGER NOT NULL,
    owner       TEXT NOT NULL,
    lease_until INTEGER,
    released_at INTEGER,
    note        TEXT NOT NULL
) STRICT;
