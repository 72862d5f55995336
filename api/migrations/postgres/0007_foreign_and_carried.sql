-- What resources of others occupy of our ports and attach points, as an account's lists show it: a VLAN, a subnet, or both.
-- Nothing of it is given out. slot is the IPv4 address shifted right by one, as in subnet_slots; their account_id has no use.
CREATE TABLE foreign_holdings (
    account_id      TEXT COLLATE "C" NOT NULL,
    kind            TEXT COLLATE "C" NOT NULL,
    cloud_id        TEXT COLLATE "C" NOT NULL,
    port_id         TEXT COLLATE "C",
    vlan            BIGINT,
    attach_point_id TEXT COLLATE "C",
    subnet          TEXT COLLATE "C",
    first_slot      BIGINT,
    last_slot       BIGINT,
    PRIMARY KEY (account_id, kind, cloud_id)
);
CREATE INDEX foreign_holdings_vlan ON foreign_holdings (port_id, vlan) WHERE port_id IS NOT NULL;
CREATE INDEX foreign_holdings_subnet ON foreign_holdings (attach_point_id, first_slot) WHERE attach_point_id IS NOT NULL;
CREATE INDEX instances_cloud ON instances (account_id, cloud_id) WHERE retired_at IS NULL;

-- What links carry, by the attach point at which it is met: way 0 is announced there, 1 is learned. network is the address
-- in hexadecimal after the family's 4 or 6, so that whatever is inside of a prefix is a range of it.
CREATE TABLE carried_prefixes (
    connection_id   TEXT COLLATE "C" NOT NULL REFERENCES connections (id) ON DELETE CASCADE,
    attach_point_id TEXT COLLATE "C" NOT NULL,
    way             BIGINT NOT NULL,
    prefix          TEXT COLLATE "C" NOT NULL,
    network         TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (connection_id, attach_point_id, way, prefix)
);
CREATE INDEX carried_prefixes_network ON carried_prefixes (attach_point_id, network);

-- The generation whose prefixes stand in carried_prefixes. Where it is another one, as after a write of the version before
-- this one, the intent has to be read; housekeeping enters it.
ALTER TABLE connections ADD COLUMN carried_of BIGINT NOT NULL DEFAULT 0;
CREATE INDEX connections_uncarried ON connections (id) WHERE carried_of <> generation;
