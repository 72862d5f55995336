-- Since when what gateways report of a connection's paths has had its status: written only when one changes.
CREATE TABLE path_conditions (
    connection_id TEXT COLLATE "C" NOT NULL,
    type          TEXT COLLATE "C" NOT NULL,
    status        TEXT COLLATE "C" NOT NULL,
    since         BIGINT NOT NULL,
    PRIMARY KEY (connection_id, type)
);
