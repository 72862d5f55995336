-- What is agreed with each peer of the open specification. A book is everything of one pairing: its revision moves with every
-- change, so that a change that was made from an older one is refused.
CREATE TABLE coordinator_books (
    peer     TEXT COLLATE "C" PRIMARY KEY,
    revision BIGINT NOT NULL
);

-- Connections by place. sealed: the passwords, which are blank in doc.
CREATE TABLE coordinator_rows (
    peer         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL,
    interconnect TEXT COLLATE "C" NOT NULL,
    connection   TEXT COLLATE "C" NOT NULL,
    uuid         TEXT COLLATE "C" NOT NULL,
    version      BIGINT NOT NULL,
    firm_mbps    BIGINT NOT NULL,
    doc          TEXT COLLATE "C" NOT NULL,
    sealed       BYTEA NOT NULL,
    due_at       BIGINT NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, connection)
);
CREATE INDEX coordinator_rows_due ON coordinator_rows (peer, due_at);

-- What an interconnect has once.
CREATE TABLE coordinator_capacity (
    peer         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL,
    interconnect TEXT COLLATE "C" NOT NULL,
    held_mbps    BIGINT NOT NULL,
    max_mbps     BIGINT NOT NULL,
    PRIMARY KEY (peer, environment, interconnect),
    CHECK (held_mbps >= 0 AND held_mbps <= max_mbps)
);

CREATE TABLE coordinator_vlans (
    peer         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL,
    interconnect TEXT COLLATE "C" NOT NULL,
    channel      TEXT COLLATE "C" NOT NULL,
    vlan         BIGINT NOT NULL,
    connection   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, channel, vlan)
);
CREATE INDEX coordinator_vlans_holder ON coordinator_vlans (peer, environment, interconnect, connection);

CREATE TABLE coordinator_slots (
    peer         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL,
    interconnect TEXT COLLATE "C" NOT NULL,
    channel      TEXT COLLATE "C" NOT NULL,
    slot         BIGINT NOT NULL,
    connection   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, channel, slot)
);
CREATE INDEX coordinator_slots_holder ON coordinator_slots (peer, environment, interconnect, connection);

-- Activation keys that were handed out here.
CREATE TABLE coordinator_keys (
    peer      TEXT COLLATE "C" NOT NULL,
    uuid      TEXT COLLATE "C" NOT NULL,
    issued_at BIGINT NOT NULL,
    spent     BIGINT NOT NULL,
    doc       TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, uuid)
);

-- Whose a connection is, by the UUID that both providers know it by. sealed: the text of the activation key that was brought
-- here for it; empty where we handed the key out.
CREATE TABLE coordinator_owners (
    peer       TEXT COLLATE "C" NOT NULL,
    uuid       TEXT COLLATE "C" NOT NULL,
    project    TEXT COLLATE "C" NOT NULL,
    sealed     BYTEA NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (peer, uuid)
);
CREATE INDEX coordinator_owners_project ON coordinator_owners (project, uuid);

CREATE TABLE coordinator_tombstones (
    peer         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL,
    interconnect TEXT COLLATE "C" NOT NULL,
    connection   TEXT COLLATE "C" NOT NULL,
    at           BIGINT NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, connection)
);

CREATE TABLE coordinator_replays (
    peer       TEXT COLLATE "C" NOT NULL,
    request_id TEXT COLLATE "C" NOT NULL,
    at         BIGINT NOT NULL,
    doc        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, request_id)
);
CREATE INDEX coordinator_replays_age ON coordinator_replays (at);

-- Key pairs that activation keys of version 2 are encrypted to.
CREATE TABLE coordinator_key_pairs (
    peer        TEXT COLLATE "C" NOT NULL,
    environment TEXT COLLATE "C" NOT NULL,
    made_at     BIGINT NOT NULL,
    sealed      BYTEA NOT NULL,
    PRIMARY KEY (peer, environment, made_at)
);

-- Tickets of the peer, and what was said to them.
CREATE TABLE coordinator_issues (
    peer       TEXT COLLATE "C" NOT NULL,
    issue      TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    doc        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, issue)
);

CREATE TABLE coordinator_comments (
    peer       TEXT COLLATE "C" NOT NULL,
    issue      TEXT COLLATE "C" NOT NULL,
    n          BIGINT NOT NULL,
    doc        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (peer, issue, n)
);
