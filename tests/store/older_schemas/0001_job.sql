-- A job as the host sees it. Times are epoch seconds.
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    title TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
    activity TEXT NOT NULL DEFAULT '',
    error_code TEXT,
    error_message TEXT,
    usage TEXT,                                 -- JSON
    turn INTEGER NOT NULL,                      -- number of the current turn
    cancel_requested_at REAL,
    cancel_sent_at REAL,                        -- so that two processes do not both send it
    watched_until REAL NOT NULL DEFAULT 0,
    holder TEXT,                                -- the process that observes it: run/<holder>.lock
    next_at REAL,                               -- when to advance it; null while its holder does, and at its end
    not_before REAL NOT NULL DEFAULT 0,         -- upstream asked not to be called before
    revision INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX job_due ON job (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX job_held ON job (holder) WHERE holder IS NOT NULL;
CREATE INDEX job_newest ON job (created_at);

-- One upstream response of a job.
CREATE TABLE turn (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    request TEXT NOT NULL,                      -- JSON, the body of POST /responses
    request_id TEXT NOT NULL,
    base_url TEXT NOT NULL,
    attempt INTEGER NOT NULL DEFAULT 0,
    sent_at REAL,
    response_id TEXT,
    sequence_number INTEGER,
    looks INTEGER NOT NULL DEFAULT 0,
    looked_at REAL,
    missing INTEGER NOT NULL DEFAULT 0,
    missing_since REAL,
    hollow INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;

-- Apart from the job, because a report may have megabytes.
CREATE TABLE output (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    text TEXT NOT NULL,
    response TEXT NOT NULL,                     -- JSON, as upstream sent it
    PRIMARY KEY (job_id, turn)
) STRICT;
