-- What peers showed and may show once, proofs of an account and tokens, by a digest, until they end by themselves.
CREATE TABLE coordinator_used (
    peer    TEXT COLLATE "C" NOT NULL,
    digest  BYTEA NOT NULL,
    ends_at BIGINT NOT NULL,
    PRIMARY KEY (peer, digest)
);
CREATE INDEX coordinator_used_end ON coordinator_used (ends_at);

-- The customer's account at the peer: a proof is of this one.
CREATE TABLE coordinator_accounts (
    peer       TEXT COLLATE "C" NOT NULL,
    uuid       TEXT COLLATE "C" NOT NULL,
    account    TEXT COLLATE "C" NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (peer, uuid)
);
