-- Jobs that were started together, or that a caller wants to ask for together.
ALTER TABLE job ADD COLUMN batch TEXT NOT NULL DEFAULT '';
-- The job that this one goes on from, and 'rebuilt' where its context had to be sent again.
ALTER TABLE job ADD COLUMN previous_job_id TEXT;
ALTER TABLE job ADD COLUMN context TEXT NOT NULL DEFAULT '';
-- The job's own limit on its run; null takes the process's.
ALTER TABLE job ADD COLUMN timeout_s REAL;
-- What it cost, null while that is not known; and the most it may cost, held against the day's budget until then.
ALTER TABLE job ADD COLUMN cost_usd REAL;
ALTER TABLE job ADD COLUMN reserved_usd REAL;
-- 1 while something is left to do after a job's end: files to be written, uploads to be removed.
ALTER TABLE job ADD COLUMN unsettled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE job ADD COLUMN result_path TEXT NOT NULL DEFAULT '';
CREATE INDEX job_batch ON job (batch, created_at) WHERE batch <> '';

-- The output's size in UTF-8, for those who do not need all of it.
ALTER TABLE output ADD COLUMN bytes INTEGER NOT NULL DEFAULT 0;
UPDATE output SET bytes = length(CAST(text AS BLOB));

-- Files that go to the provider with a job and are removed there after it.
CREATE TABLE upload (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    data BLOB NOT NULL,
    file_id TEXT,                               -- the provider's, once it is there
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

-- Files that a run made, as they were written here.
CREATE TABLE made (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    PRIMARY KEY (job_id, name)
) STRICT, WITHOUT ROWID;

-- What ended and was handed to nobody yet.
CREATE INDEX job_untold ON job (finished_at) WHERE delivered_at IS NULL AND finished_at IS NOT NULL;
