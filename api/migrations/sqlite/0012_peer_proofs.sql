-- What peers showed and may show once, proofs of an account and tokens, by a digest, until they end by themselves.
CREATE TABLE coordinator_used (
    peer    TEXT NOT NULL,
    digest  BLOB NOT NULL,
    ends_at INTEGER NOT NULL,
    PRIMARY KEY (peer, digest)
) STRICT;
CREATE INDEX coordinator_used_end ON coordinator_used (ends_at);

-- The customer's account at the peer: a proof is of this one.
CREATE TABLE coordinator_accounts (
    peer       TEXT NOT NULL,
    uuid       TEXT NOT NULL,
    account    TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (peer, uuid)
) STRICT;
