-- The preshared key of the tunnels between two gateways, of which `low` has the lesser id. NULL is no key.
CREATE TABLE tunnel_keys (
    low        TEXT COLLATE "C" NOT NULL,
    high       TEXT COLLATE "C" NOT NULL,
    -- Rises with every change.
    generation BIGINT NOT NULL,
    sealed     BYTEA,
    -- While one of the two may not have heard of the change: what it had before.
    changing   BIGINT NOT NULL,
    former     BYTEA,
    -- The first configuration that has it.
    version    BIGINT NOT NULL,
    made_at    BIGINT NOT NULL,
    PRIMARY KEY (low, high)
);
CREATE INDEX tunnel_keys_high ON tunnel_keys (high);
