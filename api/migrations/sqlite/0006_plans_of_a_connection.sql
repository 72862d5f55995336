-- Which connection a plan is about, so that its plans can be listed. A plan that the version before this one saves has none.
ALTER TABLE plans ADD COLUMN connection_id TEXT;
CREATE INDEX plans_page ON plans (project, id);
CREATE INDEX plans_connection ON plans (connection_id, id);
