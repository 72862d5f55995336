-- Channels of the open specification: their MACsec keys, and work on them. sealed: the keys' halves, which are blank in doc.
CREATE TABLE coordinator_channels (
    peer         TEXT COLLATE "C" NOT NULL,
    environment  TEXT COLLATE "C" NOT NULL,
    interconnect TEXT COLLATE "C" NOT NULL,
    channel      TEXT COLLATE "C" NOT NULL,
    version      BIGINT NOT NULL,
    doc          TEXT COLLATE "C" NOT NULL,
    sealed       BYTEA NOT NULL,
    due_at       BIGINT NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, channel)
);
CREATE INDEX coordinator_channels_due ON coordinator_channels (peer, due_at);
