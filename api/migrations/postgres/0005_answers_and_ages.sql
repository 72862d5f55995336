-- What a person said of a create without answer that nothing can find again. Not standing: it could not be, and the person
-- is asked again.
CREATE TABLE call_answers (
    call_id       TEXT COLLATE "C" PRIMARY KEY,
    connection_id TEXT COLLATE "C" NOT NULL,
    answer        TEXT COLLATE "C" NOT NULL,
    standing      BIGINT NOT NULL,
    answered_at   BIGINT NOT NULL
);
CREATE INDEX call_answers_connection ON call_answers (connection_id);

-- What is not kept for ever is found by its age.
CREATE INDEX audit_age ON audit (at);
CREATE INDEX issues_age ON issues (resolved_at) WHERE resolved_at IS NOT NULL;
CREATE INDEX operations_age ON operations (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX instances_age ON instances (retired_at) WHERE retired_at IS NOT NULL;
CREATE INDEX twins_age ON twins (retired_at) WHERE retired_at IS NOT NULL;
