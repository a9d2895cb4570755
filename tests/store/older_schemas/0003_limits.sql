-- What was asked for, without the job's own id: the same work is not started twice unasked.
ALTER TABLE job ADD COLUMN request_hash TEXT NOT NULL DEFAULT '';
-- The caller's own key: one job for each, for ever.
ALTER TABLE job ADD COLUMN key TEXT;
-- When a result was first handed to a host.
ALTER TABLE job ADD COLUMN delivered_at REAL;
-- 1 goes before 0 while jobs wait for a slot.
ALTER TABLE job ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
CREATE UNIQUE INDEX job_key ON job (key) WHERE key IS NOT NULL;
CREATE INDEX job_same ON job (request_hash);
CREATE INDEX job_open ON job (status) WHERE status IN ('pending', 'starting', 'queued', 'in_progress', 'input_required');

-- When our own deadline had the turn cancelled.
ALTER TABLE turn ADD COLUMN timed_out_at REAL;
-- How it was sent: background_stream, background or foreground.
ALTER TABLE turn ADD COLUMN mode TEXT NOT NULL DEFAULT 'background_stream';
-- Whose key created the response, salted and cut: only its owner's "not found" counts.
ALTER TABLE turn ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';

-- What an endpoint was seen to refuse, with the answer that taught it.
CREATE TABLE mode (
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    mode TEXT NOT NULL,
    learned_at REAL NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (base_url, model)
) STRICT, WITHOUT ROWID;

-- What is left of a purged job.
CREATE TABLE tombstone (
    job_id TEXT PRIMARY KEY,
    status TEXT NOT NULL,
    finished_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
