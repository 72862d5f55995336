-- WireGuard interfaces of a gateway's kernel, one for each peer gateway that it has one for.
CREATE TABLE kernel_lanes (
    gateway_id TEXT COLLATE "C" NOT NULL,
    peer_id    TEXT COLLATE "C" NOT NULL,
    doc        TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (gateway_id, peer_id)
);
CREATE INDEX kernel_lanes_peer ON kernel_lanes (peer_id);
