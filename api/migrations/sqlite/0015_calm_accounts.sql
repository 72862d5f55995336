-- Whether an account's last lists showed everything as it was: then the next may be left out once.
ALTER TABLE account_watches ADD COLUMN calm INTEGER NOT NULL DEFAULT 0;
