-- What is agreed with each peer of the open specification. A book is everything of one pairing: its revision moves with every
-- change, so that a change that was made from an older one is refused.
CREATE TABLE coordinator_books (
    peer     TEXT PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT;

-- Connections by place. sealed: the passwords, which are blank in doc.
CREATE TABLE coordinator_rows (
    peer         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    interconnect TEXT NOT NULL,
    connection   TEXT NOT NULL,
    uuid         TEXT NOT NULL,
    version      INTEGER NOT NULL,
    firm_mbps    INTEGER NOT NULL,
    doc          TEXT NOT NULL,
    sealed       BLOB NOT NULL,
    due_at       INTEGER NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, connection)
) STRICT;
CREATE INDEX coordinator_rows_due ON coordinator_rows (peer, due_at);

-- What an interconnect has once.
CREATE TABLE coordinator_capacity (
    peer         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    interconnect TEXT NOT NULL,
    held_mbps    INTEGER NOT NULL,
    max_mbps     INTEGER NOT NULL,
    PRIMARY KEY (peer, environment, interconnect),
    CHECK (held_mbps >= 0 AND held_mbps <= max_mbps)
) STRICT;

CREATE TABLE coordinator_vlans (
    peer         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    interconnect TEXT NOT NULL,
    channel      TEXT NOT NULL,
    vlan         INTEGER NOT NULL,
    connection   TEXT NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, channel, vlan)
) STRICT;
CREATE INDEX coordinator_vlans_holder ON coordinator_vlans (peer, environment, interconnect, connection);

CREATE TABLE coordinator_slots (
    peer         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    interconnect TEXT NOT NULL,
    channel      TEXT NOT NULL,
    slot         INTEGER NOT NULL,
    connection   TEXT NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, channel, slot)
) STRICT;
CREATE INDEX coordinator_slots_holder ON coordinator_slots (peer, environment, interconnect, connection);

-- Activation keys that were handed out here.
CREATE TABLE coordinator_keys (
    peer      TEXT NOT NULL,
    uuid      TEXT NOT NULL,
    issued_at INTEGER NOT NULL,
    spent     INTEGER NOT NULL,
    doc       TEXT NOT NULL,
    PRIMARY KEY (peer, uuid)
) STRICT;

-- Whose a connection is, by the UUID that both providers know it by. sealed: the text of the activation key that was brought
-- here for it; empty where we handed the key out.
CREATE TABLE coordinator_owners (
    peer       TEXT NOT NULL,
    uuid       TEXT NOT NULL,
    project    TEXT NOT NULL,
    sealed     BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (peer, uuid)
) STRICT;
CREATE INDEX coordinator_owners_project ON coordinator_owners (project, uuid);

CREATE TABLE coordinator_tombstones (
    peer         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    interconnect TEXT NOT NULL,
    connection   TEXT NOT NULL,
    at           INTEGER NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, connection)
) STRICT;

CREATE TABLE coordinator_replays (
    peer       TEXT NOT NULL,
    request_id TEXT NOT NULL,
    at         INTEGER NOT NULL,
    doc        TEXT NOT NULL,
    PRIMARY KEY (peer, request_id)
) STRICT;
CREATE INDEX coordinator_replays_age ON coordinator_replays (at);

-- Key pairs that activation keys of version 2 are encrypted to.
CREATE TABLE coordinator_key_pairs (
    peer        TEXT NOT NULL,
    environment TEXT NOT NULL,
    made_at     INTEGER NOT NULL,
    sealed      BLOB NOT NULL,
    PRIMARY KEY (peer, environment, made_at)
) STRICT;

-- Tickets of the peer, and what was said to them.
CREATE TABLE coordinator_issues (
    peer       TEXT NOT NULL,
    issue      TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    doc        TEXT NOT NULL,
    PRIMARY KEY (peer, issue)
) STRICT;

CREATE TABLE coordinator_comments (
    peer       TEXT NOT NULL,
    issue      TEXT NOT NULL,
    n          INTEGER NOT NULL,
    doc        TEXT NOT NULL,
    PRIMARY KEY (peer, issue, n)
) STRICT;
