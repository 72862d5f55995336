-- How a connection is observed between passes. 0: each resource by itself. 1: by its accounts' lists. 2: a list showed something
-- else than was recorded, so each resource by itself; the lists still expect it.
ALTER TABLE connections ADD COLUMN watch INTEGER NOT NULL DEFAULT 0;

-- What an account's lists showed. held: nothing is created in it, since too much of what was expected was absent.
-- accepted: as many absences as a person has said are meant.
CREATE TABLE account_watches (
    account_id  TEXT PRIMARY KEY,
    tried_at    INTEGER,
    observed_at INTEGER,
    swept_at    INTEGER,
    failures    INTEGER NOT NULL DEFAULT 0,
    expected    INTEGER NOT NULL DEFAULT 0,
    absent      INTEGER NOT NULL DEFAULT 0,
    accepted    INTEGER NOT NULL DEFAULT 0,
    held        INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX instances_account ON instances (account_id, id) WHERE retired_at IS NULL;
