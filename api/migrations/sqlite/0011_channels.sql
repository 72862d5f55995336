-- Channels of the open specification: their MACsec keys, and work on them. sealed: the keys' halves, which are blank in doc.
CREATE TABLE coordinator_channels (
    peer         TEXT NOT NULL,
    environment  TEXT NOT NULL,
    interconnect TEXT NOT NULL,
    channel      TEXT NOT NULL,
    version      INTEGER NOT NULL,
    doc          TEXT NOT NULL,
    sealed       BLOB NOT NULL,
    due_at       INTEGER NOT NULL,
    PRIMARY KEY (peer, environment, interconnect, channel)
) STRICT;
CREATE INDEX coordinator_channels_due ON coordinator_channels (peer, due_at);
