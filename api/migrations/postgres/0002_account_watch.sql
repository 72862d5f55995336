-- How a connection is observed between passes. 0: each resource by itself. 1: by its accounts' lists. 2: a list showed something
-- else than was recorded, so each resource by itself; the lists still expect it.
ALTER TABLE connections ADD COLUMN watch BIGINT NOT NULL DEFAULT 0;

-- What an account's lists showed. held: nothing is created in it, since too much of what was expected was absent.
-- accepted: as many absences as a person has said are meant.
CREATE TABLE account_watches (
    account_id  TEXT COLLATE "C" PRIMARY KEY,
    tried_at    BIGINT,
    observed_at BIGINT,
    swept_at    BIGINT,
    failures    BIGINT NOT NULL DEFAULT 0,
    expected    BIGINT NOT NULL DEFAULT 0,
    absent      BIGINT NOT NULL DEFAULT 0,
    accepted    BIGINT NOT NULL DEFAULT 0,
    held        BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX instances_account ON instances (account_id, id) WHERE retired_at IS NULL;
