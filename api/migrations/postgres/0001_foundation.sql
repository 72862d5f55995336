-- Times are integer milliseconds since 1970-01-01T00:00:00Z, ids are hyphenated lower-case text, documents are JSON text.

CREATE TABLE installation (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    id  TEXT COLLATE "C" NOT NULL
);

CREATE TABLE counters (
    name  TEXT COLLATE "C" PRIMARY KEY,
    value BIGINT NOT NULL
);
INSERT INTO counters (name, value)
VALUES ('event_cursor', 0), ('event_floor', 0), ('configuration', 0), ('gateway_number', 0);

CREATE TABLE tokens (
    id           TEXT COLLATE "C" PRIMARY KEY,
    project      TEXT COLLATE "C" NOT NULL,
    name         TEXT COLLATE "C" NOT NULL,
    scope        TEXT COLLATE "C" NOT NULL,
    hash         BYTEA NOT NULL UNIQUE,
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,
    deleted_at   BIGINT
);
CREATE UNIQUE INDEX tokens_name ON tokens (project, name) WHERE deleted_at IS NULL;

CREATE TABLE audit (
    seq        BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at         BIGINT NOT NULL,
    principal  TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    action     TEXT COLLATE "C" NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL
);
CREATE INDEX audit_subject ON audit (subject, seq);

CREATE TABLE answers (
    principal  TEXT COLLATE "C" NOT NULL,
    method     TEXT COLLATE "C" NOT NULL,
    path       TEXT COLLATE "C" NOT NULL,
    idem_key   TEXT COLLATE "C" NOT NULL,
    digest     BYTEA NOT NULL,
    answer     TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (principal, method, path, idem_key)
);
CREATE INDEX answers_age ON answers (created_at);

CREATE TABLE connections (
    id                    TEXT COLLATE "C" PRIMARY KEY,
    project               TEXT COLLATE "C" NOT NULL,
    name                  TEXT COLLATE "C" NOT NULL,
    environment_id        TEXT COLLATE "C" NOT NULL,
    a_attach_point_id     TEXT COLLATE "C" NOT NULL,
    b_attach_point_id     TEXT COLLATE "C" NOT NULL,
    kind                  TEXT COLLATE "C" NOT NULL,
    generation            BIGINT NOT NULL,
    observed_generation   BIGINT NOT NULL DEFAULT 0,
    last_operation_id     TEXT COLLATE "C" NOT NULL,
    created_at            BIGINT NOT NULL,
    updated_at            BIGINT NOT NULL,
    deletion_requested_at BIGINT,
    lease_epoch           BIGINT NOT NULL DEFAULT 0,
    lease_owner           TEXT COLLATE "C",
    lease_until           BIGINT,
    fenced_at             BIGINT,
    due_at                BIGINT NOT NULL,
    -- 1: the intent changed since the last claim, so that the release must not put the next pass off.
    wake                  BIGINT NOT NULL DEFAULT 0,
    failures              BIGINT NOT NULL DEFAULT 0,
    last_progress_at      BIGINT NOT NULL,
    -- When it can next be claimed: due, and no lease in the way.
    ready_at              BIGINT NOT NULL GENERATED ALWAYS AS
                          (CASE WHEN lease_until > due_at THEN lease_until ELSE due_at END) STORED,
    intent                TEXT COLLATE "C" NOT NULL,
    negotiated            TEXT COLLATE "C" NOT NULL,
    status                TEXT COLLATE "C" NOT NULL,
    UNIQUE (project, name)
);
CREATE INDEX connections_ready ON connections (ready_at);
CREATE INDEX connections_page ON connections (project, id);
CREATE INDEX connections_a ON connections (a_attach_point_id);
CREATE INDEX connections_b ON connections (b_attach_point_id);

CREATE TABLE channel_configurations (
    connection_id TEXT COLLATE "C" NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    channel_id    TEXT COLLATE "C" NOT NULL,
    generation    BIGINT NOT NULL,
    doc           TEXT COLLATE "C" NOT NULL,
    retired_at    BIGINT,
    PRIMARY KEY (connection_id, channel_id, generation)
);

CREATE TABLE secrets (
    connection_id TEXT COLLATE "C" NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    channel_id    TEXT COLLATE "C" NOT NULL,
    generation    BIGINT NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    sealed        BYTEA NOT NULL,
    PRIMARY KEY (connection_id, channel_id, generation, name)
);

-- A row without free_at is held by its connection. With free_at it is in quarantine (connection_id set) or was seen
-- occupied by others (account_id set), and free from that time on.
CREATE TABLE vlan_allocations (
    port_id       TEXT COLLATE "C" NOT NULL,
    vlan          BIGINT NOT NULL CHECK (vlan BETWEEN 1 AND 4094),
    connection_id TEXT COLLATE "C",
    channel_id    TEXT COLLATE "C",
    generation    BIGINT,
    account_id    TEXT COLLATE "C",
    free_at       BIGINT,
    PRIMARY KEY (port_id, vlan)
);
CREATE INDEX vlan_allocations_owner ON vlan_allocations (connection_id);
CREATE INDEX vlan_allocations_free ON vlan_allocations (free_at) WHERE free_at IS NOT NULL;

-- slot is the IPv4 address shifted right by one: the grid of /31s.
CREATE TABLE subnet_slots (
    attach_point_id TEXT COLLATE "C" NOT NULL,
    slot            BIGINT NOT NULL,
    subnet          TEXT COLLATE "C" NOT NULL,
    connection_id   TEXT COLLATE "C",
    channel_id      TEXT COLLATE "C",
    generation      BIGINT,
    account_id      TEXT COLLATE "C",
    free_at         BIGINT,
    PRIMARY KEY (attach_point_id, slot)
);
CREATE INDEX subnet_slots_owner ON subnet_slots (connection_id);
CREATE INDEX subnet_slots_free ON subnet_slots (free_at) WHERE free_at IS NOT NULL;

CREATE TABLE channel_bandwidth (
    channel_id    TEXT COLLATE "C" PRIMARY KEY,
    used_mbps     BIGINT NOT NULL CHECK (used_mbps >= 0),
    capacity_mbps BIGINT NOT NULL,
    CHECK (used_mbps <= capacity_mbps)
);
CREATE TABLE bandwidth_shares (
    connection_id TEXT COLLATE "C" NOT NULL,
    channel_id    TEXT COLLATE "C" NOT NULL,
    mbps          BIGINT NOT NULL CHECK (mbps > 0),
    PRIMARY KEY (connection_id, channel_id)
);

CREATE TABLE instances (
    id            TEXT COLLATE "C" PRIMARY KEY,
    connection_id TEXT COLLATE "C" NOT NULL,
    project       TEXT COLLATE "C" NOT NULL,
    channel_id    TEXT COLLATE "C" NOT NULL,
    generation    BIGINT NOT NULL,
    side          TEXT COLLATE "C" NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL,
    account_id    TEXT COLLATE "C" NOT NULL,
    cloud_id      TEXT COLLATE "C",
    doc           TEXT COLLATE "C" NOT NULL,
    retired_at    BIGINT
);
CREATE INDEX instances_connection ON instances (connection_id);
CREATE UNIQUE INDEX instances_live ON instances (connection_id, channel_id, generation, side, kind)
    WHERE retired_at IS NULL;

CREATE TABLE provider_calls (
    id            TEXT COLLATE "C" PRIMARY KEY,
    seq           BIGINT NOT NULL,
    instance_id   TEXT COLLATE "C" NOT NULL,
    connection_id TEXT COLLATE "C" NOT NULL,
    project       TEXT COLLATE "C" NOT NULL,
    verb          TEXT COLLATE "C" NOT NULL,
    identity      TEXT COLLATE "C" NOT NULL,
    side          TEXT COLLATE "C" NOT NULL,
    kind          TEXT COLLATE "C" NOT NULL,
    account_id    TEXT COLLATE "C" NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,
    token         TEXT COLLATE "C" NOT NULL,
    digest        BYTEA NOT NULL,
    written_at    BIGINT NOT NULL,
    deadline      BIGINT NOT NULL,
    verdict       TEXT COLLATE "C" NOT NULL,
    is_open       BIGINT NOT NULL,
    decided_at    BIGINT,
    cloud_id      TEXT COLLATE "C",
    request_id    TEXT COLLATE "C",
    UNIQUE (connection_id, seq)
);
CREATE INDEX provider_calls_instance ON provider_calls (instance_id);

CREATE TABLE operations (
    id            TEXT COLLATE "C" PRIMARY KEY,
    project       TEXT COLLATE "C" NOT NULL,
    connection_id TEXT COLLATE "C" NOT NULL,
    finished_at   BIGINT,
    doc           TEXT COLLATE "C" NOT NULL
);
CREATE INDEX operations_page ON operations (project, id);
CREATE INDEX operations_connection ON operations (connection_id, id);

CREATE TABLE plans (
    id         TEXT COLLATE "C" PRIMARY KEY,
    project    TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL,
    doc        TEXT COLLATE "C" NOT NULL,
    request    TEXT COLLATE "C" NOT NULL
);
CREATE INDEX plans_age ON plans (expires_at);

CREATE TABLE events (
    cursor     BIGINT PRIMARY KEY,
    project    TEXT COLLATE "C" NOT NULL,
    time       BIGINT NOT NULL,
    kind       TEXT COLLATE "C" NOT NULL,
    subject    TEXT COLLATE "C" NOT NULL,
    generation BIGINT,
    cause      TEXT COLLATE "C" NOT NULL,
    data       TEXT COLLATE "C" NOT NULL
);
CREATE INDEX events_project ON events (project, cursor);

CREATE TABLE issues (
    id          TEXT COLLATE "C" PRIMARY KEY,
    project     TEXT COLLATE "C" NOT NULL,
    code        TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    created_at  BIGINT NOT NULL,
    resolved_at BIGINT,
    doc         TEXT COLLATE "C" NOT NULL
);
CREATE UNIQUE INDEX issues_open ON issues (project, code, subject) WHERE resolved_at IS NULL;
CREATE INDEX issues_page ON issues (project, id);

CREATE TABLE join_tokens (
    id              TEXT COLLATE "C" PRIMARY KEY,
    project         TEXT COLLATE "C" NOT NULL,
    gateway_group   TEXT COLLATE "C" NOT NULL,
    attach_point_id TEXT COLLATE "C" NOT NULL,
    hash            BYTEA NOT NULL UNIQUE,
    expires_at      BIGINT NOT NULL,
    used_at         BIGINT
);

CREATE TABLE gateways (
    id                    TEXT COLLATE "C" PRIMARY KEY,
    project               TEXT COLLATE "C" NOT NULL,
    number                BIGINT NOT NULL UNIQUE,
    gateway_group         TEXT COLLATE "C" NOT NULL,
    attach_point_id       TEXT COLLATE "C" NOT NULL,
    request               TEXT COLLATE "C" NOT NULL,
    credential_hash       BYTEA NOT NULL UNIQUE,
    created_at            BIGINT NOT NULL,
    last_heard_at         BIGINT,
    last_sequence         BIGINT NOT NULL DEFAULT -1,
    configuration_version BIGINT
);
CREATE INDEX gateways_page ON gateways (project, id);
CREATE INDEX gateways_attach_point ON gateways (attach_point_id);

CREATE TABLE latest_samples (
    connection_id TEXT COLLATE "C" NOT NULL,
    gateway_id    TEXT COLLATE "C" NOT NULL,
    peer_id       TEXT COLLATE "C" NOT NULL,
    path          TEXT COLLATE "C" NOT NULL,
    at            BIGINT NOT NULL,
    doc           TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (connection_id, gateway_id, peer_id, path)
);
CREATE INDEX latest_samples_age ON latest_samples (at);

-- One row a minute and path: sums, and the worst of the minute.
CREATE TABLE sample_minutes (
    connection_id  TEXT COLLATE "C" NOT NULL,
    gateway_id     TEXT COLLATE "C" NOT NULL,
    peer_id        TEXT COLLATE "C" NOT NULL,
    path           TEXT COLLATE "C" NOT NULL,
    minute         BIGINT NOT NULL,
    sent           BIGINT NOT NULL,
    received       BIGINT NOT NULL,
    rtt_min_us     BIGINT,
    rtt_p99_max_us BIGINT,
    dead_ports_max BIGINT NOT NULL,
    bytes_out      BIGINT NOT NULL,
    bytes_in       BIGINT NOT NULL,
    PRIMARY KEY (connection_id, gateway_id, peer_id, path, minute)
);
CREATE INDEX sample_minutes_age ON sample_minutes (minute);

CREATE TABLE shared_leases (
    name        TEXT COLLATE "C" PRIMARY KEY,
    epoch       BIGINT NOT NULL,
    owner       TEXT COLLATE "C" NOT NULL,
    lease_until BIGINT,
    released_at BIGINT,
    note        TEXT COLLATE "C" NOT NULL
);
