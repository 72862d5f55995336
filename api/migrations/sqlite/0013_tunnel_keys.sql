-- The preshared key of the tunnels between two gateways, of which `low` has the lesser id. NULL is no key.
CREATE TABLE tunnel_keys (
    low        TEXT NOT NULL,
    high       TEXT NOT NULL,
    -- Rises with every change.
    generation INTEGER NOT NULL,
    sealed     BLOB,
    -- While one of the two may not have heard of the change: what it had before.
    changing   INTEGER NOT NULL,
    former     BLOB,
    -- The first configuration that has it.
    version    INTEGER NOT NULL,
    made_at    INTEGER NOT NULL,
    PRIMARY KEY (low, high)
) STRICT;
CREATE INDEX tunnel_keys_high ON tunnel_keys (high);
