-- Since when what gateways report of a connection's paths has had its status: written only when one changes.
CREATE TABLE path_conditions (
    connection_id TEXT NOT NULL,
    type          TEXT NOT NULL,
    status        TEXT NOT NULL,
    since         INTEGER NOT NULL,
    PRIMARY KEY (connection_id, type)
) STRICT, WITHOUT ROWID;
