-- WireGuard interfaces of a gateway's kernel, one for each peer gateway that it has one for.
CREATE TABLE kernel_lanes (
    gateway_id TEXT NOT NULL,
    peer_id    TEXT NOT NULL,
    doc        TEXT NOT NULL,
    PRIMARY KEY (gateway_id, peer_id)
) STRICT;
CREATE INDEX kernel_lanes_peer ON kernel_lanes (peer_id);
