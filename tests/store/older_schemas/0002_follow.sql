-- How a job is observed: 'following' its stream, 'polling', or '' before there is anything to observe.
ALTER TABLE job ADD COLUMN observed_by TEXT NOT NULL DEFAULT '';
-- Attachments in a row that brought no event; at three the stream is left alone for good.
ALTER TABLE turn ADD COLUMN detached INTEGER NOT NULL DEFAULT 0;
-- The tail of what the model has written so far.
ALTER TABLE turn ADD COLUMN partial TEXT NOT NULL DEFAULT '';

-- What happened to a job, for people.
CREATE TABLE event (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX event_of_job ON event (job_id, at);
