-- The first version on PostgreSQL: the tables of SQLite's version 10. Times are epoch seconds.
-- Ids sort by their bytes, as SQLite sorts them. What a provider sent stays TEXT: jsonb would change its bytes.

-- A job as the host sees it.
CREATE TABLE job (
    id TEXT COLLATE "C" PRIMARY KEY,
    title TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    finished_at DOUBLE PRECISION,
    activity TEXT NOT NULL DEFAULT '',
    error_code TEXT,
    error_message TEXT,
    turn INTEGER NOT NULL,                      -- number of the current turn
    revision INTEGER NOT NULL DEFAULT 0,        -- grows with every change that a reader can see

    -- What was started, by whom, and how.
    model TEXT NOT NULL DEFAULT '',             -- as it was asked for
    effort TEXT NOT NULL DEFAULT '',            -- of reasoning; '' where the model decides
    preset TEXT NOT NULL DEFAULT '',
    client TEXT NOT NULL DEFAULT '',            -- the host that started it, or the command
    request_hash TEXT NOT NULL DEFAULT '',      -- of the work alone: the same work is not started twice unasked
    key TEXT COLLATE "C",                       -- the caller's own: one job for each, for ever
    priority INTEGER NOT NULL DEFAULT 0,        -- 1 goes before 0 while jobs wait for a slot
    batch TEXT COLLATE "C" NOT NULL DEFAULT '', -- jobs that were started together
    previous_job_id TEXT COLLATE "C",           -- the job that this one continues
    context TEXT NOT NULL DEFAULT '',           -- 'rebuilt' if the conversation before it had to be sent again
    timeout_s DOUBLE PRECISION,                 -- its own limit; null means the process's
    toolbox TEXT NOT NULL DEFAULT '[]',         -- JSON, the tools of the user's servers that it may call

    -- Tokens and money. The columns with `before` sum up the turns before the current one.
    usage TEXT,                                 -- JSON
    usage_before TEXT,                          -- JSON
    cost_usd DOUBLE PRECISION,                  -- null while it is not known
    cost_before_usd DOUBLE PRECISION,
    reserved_usd DOUBLE PRECISION,              -- the most it may cost, held against the day's budget
    max_cost_usd DOUBLE PRECISION,

    -- Which process works on it, and when.
    holder TEXT COLLATE "C",                    -- the process that has claimed it: a row of replica
    next_at DOUBLE PRECISION,                   -- when its next step is due; null during a step, and after the last one
    not_before DOUBLE PRECISION NOT NULL DEFAULT 0, -- upstream asked not to be called earlier
    watched_until DOUBLE PRECISION NOT NULL DEFAULT 0, -- a caller waits for it until then
    observed_by TEXT NOT NULL DEFAULT '',       -- 'following' its stream, 'polling', or '' before there is a response
    running_since DOUBLE PRECISION,             -- start of its first POST, shifted by the time in input_required
    cancel_requested_at DOUBLE PRECISION,
    cancel_sent_at DOUBLE PRECISION,            -- so that two processes do not both send it

    -- After its end.
    delivered_at DOUBLE PRECISION,              -- when a reader first received its result: a host or a person
    read_at DOUBLE PRECISION,                   -- when a person first opened it
    in_search BOOLEAN NOT NULL DEFAULT FALSE,   -- true once the search index has its texts
    noticed_at DOUBLE PRECISION,                -- time of the end or question that a notification was claimed for
    unsettled BOOLEAN NOT NULL DEFAULT FALSE,   -- true while files are still to be written or removed
    result_path TEXT NOT NULL DEFAULT ''
);
CREATE INDEX job_due ON job (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX job_held ON job (holder) WHERE holder IS NOT NULL;
CREATE UNIQUE INDEX job_key ON job (key) WHERE key IS NOT NULL;
CREATE INDEX job_same ON job (request_hash);
CREATE INDEX job_batch ON job (batch, created_at) WHERE batch <> '';
CREATE INDEX job_status ON job (status, created_at);
-- The cost of a day is read from the index alone.
CREATE INDEX job_newest ON job (created_at, status, cost_usd, reserved_usd, cost_before_usd);
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_unsearchable ON job (finished_at) WHERE NOT in_search AND finished_at IS NOT NULL;
CREATE INDEX job_untold ON job (finished_at) WHERE delivered_at IS NULL AND finished_at IS NOT NULL;

-- One upstream response of a job.
CREATE TABLE turn (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    base_url TEXT NOT NULL,
    fingerprint TEXT NOT NULL DEFAULT '',       -- of the key that created it, salted and cut
    mode TEXT NOT NULL DEFAULT 'background_stream',
    rebuilt BOOLEAN NOT NULL DEFAULT FALSE,     -- true if its request repeats the whole conversation before it
    attempt INTEGER NOT NULL DEFAULT 0,
    sent_at DOUBLE PRECISION,
    response_id TEXT,
    sequence_number BIGINT,                     -- of the last stream event
    looks INTEGER NOT NULL DEFAULT 0,           -- retrieves
    looked_at DOUBLE PRECISION,
    missing INTEGER NOT NULL DEFAULT 0,         -- retrieves in a row that were answered with "not found"
    missing_since DOUBLE PRECISION,
    hollow INTEGER NOT NULL DEFAULT 0,          -- retrieves that showed `completed` without output
    detached INTEGER NOT NULL DEFAULT 0,        -- attempts to stream in a row without an event
    partial TEXT NOT NULL DEFAULT '',           -- the tail of the text so far
    reasoning TEXT NOT NULL DEFAULT '',         -- the tail of the reasoning so far
    timed_out_at DOUBLE PRECISION,              -- when our own deadline had it cancelled
    acting BOOLEAN NOT NULL DEFAULT FALSE,      -- true if it ended by asking for calls
    asked_at DOUBLE PRECISION,                  -- since when the job waits for an answer
    usage TEXT,                                 -- JSON, of this turn alone
    cost_usd DOUBLE PRECISION,                  -- of this turn alone; null while it is not known
    PRIMARY KEY (job_id, number)
);

-- Apart from the turn, which is read and written at every poll, because a request may hold files.
CREATE TABLE request (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    body TEXT NOT NULL,                         -- JSON, of POST /responses
    PRIMARY KEY (job_id, turn)
);

-- What the caller asked, in the caller's words. Apart from the job and the request, which also hold much else.
CREATE TABLE prompt (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of the jobs
    job_id TEXT COLLATE "C" NOT NULL UNIQUE REFERENCES job (id) ON DELETE CASCADE,
    text TEXT NOT NULL
);

-- What each turn did, item by item. The times say when a process first saw it.
CREATE TABLE step (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    position INTEGER NOT NULL,                  -- in the output of the turn
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    detail TEXT NOT NULL,
    error TEXT NOT NULL,
    seen_at DOUBLE PRECISION NOT NULL,
    finished_at DOUBLE PRECISION,               -- null while it runs
    PRIMARY KEY (job_id, turn, position)
);

-- Apart from the job, because a report may have megabytes.
CREATE TABLE output (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    text TEXT NOT NULL,
    response TEXT NOT NULL,                     -- JSON, as upstream sent it
    bytes BIGINT NOT NULL DEFAULT 0,            -- of the text in UTF-8
    PRIMARY KEY (job_id, turn)
);
-- The size of an output is stored behind it: without this index SQLite would read all of the output.
CREATE INDEX output_size ON output (job_id, turn, bytes);

-- What a turn asks for before the job can continue.
CREATE TABLE call (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    id TEXT COLLATE "C" NOT NULL,               -- call_id, or the id of an approval request
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,
    needs TEXT NOT NULL,                        -- run, approval or output; '' until that is known
    state TEXT NOT NULL,                        -- open, approved, running or done
    output TEXT,                                -- JSON, its answer for upstream
    position INTEGER NOT NULL,
    started_at DOUBLE PRECISION,                -- when a process here began to run it
    finished_at DOUBLE PRECISION,
    PRIMARY KEY (job_id, turn, id)
);

-- Files that go to the provider with a job and are deleted there after it.
CREATE TABLE upload (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    data BYTEA NOT NULL,
    file_id TEXT,                               -- the provider's, once it is there
    PRIMARY KEY (job_id, name)
);

-- Files that a run made, as they were written here.
CREATE TABLE made (
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    path TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    PRIMARY KEY (job_id, name)
);

-- What happened to a job, for people.
CREATE TABLE event (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    at DOUBLE PRECISION NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL DEFAULT ''
);
CREATE INDEX event_of_job ON event (job_id, at);

-- The texts that a search reads.
CREATE VIEW searchable (number, title, prompt, output) AS
SELECT prompt.number, job.title, substr(prompt.text, 1, 200000), COALESCE(substr(output.text, 1, 200000), '')
FROM prompt JOIN job ON job.id = prompt.job_id LEFT JOIN output ON output.job_id = job.id AND output.turn = job.turn;

-- What remains of a purged job.
CREATE TABLE tombstone (
    job_id TEXT COLLATE "C" PRIMARY KEY,
    status TEXT NOT NULL,
    finished_at DOUBLE PRECISION NOT NULL,
    created_at DOUBLE PRECISION,                -- null if an older version deleted the job
    cost_usd DOUBLE PRECISION                   -- what the job counts with in the budget of its day
);
CREATE INDEX tombstone_day ON tombstone (created_at, cost_usd) WHERE created_at IS NOT NULL;

-- What an endpoint refused, with the answer that said so. A model "-name" stands for the parameter of that name.
CREATE TABLE mode (
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    mode TEXT NOT NULL,                         -- background_stream, background or foreground; or 'refused'
    learned_at DOUBLE PRECISION NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (base_url, model)
);

-- How many jobs have each status. A table of counts would be one row that all writers lock.
CREATE VIEW tally (status, jobs) AS SELECT status, COUNT(*) FROM job GROUP BY status;

-- The words of the jobs that ended, filled by the first search after that.
CREATE TABLE job_words (
    job_id TEXT COLLATE "C" PRIMARY KEY REFERENCES job (id) ON DELETE CASCADE,
    words TSVECTOR NOT NULL
);
CREATE INDEX job_words_index ON job_words USING GIN (words);

-- A number or a truth in JSON, which SQLite reads by a function of this name.
CREATE FUNCTION json_extract(body TEXT, path TEXT) RETURNS INTEGER LANGUAGE SQL IMMUTABLE AS $$
    SELECT CASE value WHEN 'true' THEN 1 WHEN 'false' THEN 0 ELSE value::INTEGER END
    FROM (SELECT body::jsonb ->> substr(path, 3) AS value) AS found
$$;

-- The processes that have this database open. One that does not write its time is dead.
CREATE TABLE replica (
    name TEXT COLLATE "C" PRIMARY KEY,
    announced TEXT NOT NULL DEFAULT '',         -- JSON, for other processes; '' while it works on no jobs
    beat_at TIMESTAMPTZ NOT NULL DEFAULT clock_timestamp(),
    steady_since TIMESTAMPTZ NOT NULL DEFAULT '-infinity' -- when it came back after a silence
);

-- Rows that are written again and again leave room for their next versions on the same page.
ALTER TABLE job SET (fillfactor = 70);
ALTER TABLE turn SET (fillfactor = 70);
