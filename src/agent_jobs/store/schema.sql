-- The tables of version 11. Times are epoch seconds.

-- A job as the host sees it.
CREATE TABLE job (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL DEFAULT '',             -- who started it on a team server; '' for a single user
    title TEXT NOT NULL,
    status TEXT NOT NULL,
    created_at REAL NOT NULL,
    finished_at REAL,
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
    key TEXT,                                   -- the caller's own: one job for each, for ever
    priority INTEGER NOT NULL DEFAULT 0,        -- 1 goes before 0 while jobs wait for a slot
    batch TEXT NOT NULL DEFAULT '',             -- jobs that were started together
    previous_job_id TEXT,                       -- the job that this one continues
    context TEXT NOT NULL DEFAULT '',           -- 'rebuilt' if the conversation before it had to be sent again
    timeout_s REAL,                             -- its own limit; null means the process's
    toolbox TEXT NOT NULL DEFAULT '[]',         -- JSON, the tools of the user's servers that it may call
    always_allowed TEXT NOT NULL DEFAULT '[]',  -- JSON, the tools that its user allows without being asked again

    -- Tokens and money. The columns with `before` sum up the turns before the current one.
    usage TEXT,                                 -- JSON
    usage_before TEXT,                          -- JSON
    cost_usd REAL,                              -- null while it is not known
    cost_before_usd REAL,
    reserved_usd REAL,                          -- the most it may cost, held against the day's budget
    max_cost_usd REAL,

    -- Which process works on it, and when.
    holder TEXT,                                -- the process that has claimed it: run/<holder>.lock
    lost_claims INTEGER NOT NULL DEFAULT 0,     -- times that it was taken from a process that seemed dead
    next_at REAL,                               -- when its next step is due; null during a step, and after the last one
    not_before REAL NOT NULL DEFAULT 0,         -- upstream asked not to be called earlier
    watched_until REAL NOT NULL DEFAULT 0,      -- a caller waits for it until then
    hinted INTEGER NOT NULL DEFAULT 0,          -- 1 if a webhook named its response since its step began
    observed_by TEXT NOT NULL DEFAULT '',       -- 'following' its stream, 'polling', or '' before there is a response
    running_since REAL,                         -- start of its first POST, shifted by the time in input_required
    cancel_requested_at REAL,
    cancel_sent_at REAL,                        -- so that two processes do not both send it

    -- After its end.
    delivered_at REAL,                          -- when a reader first received its result: a host or a person
    read_at REAL,                               -- when a person first opened it
    in_search INTEGER NOT NULL DEFAULT 0,       -- 1 once the search index has its texts
    noticed_at REAL,                            -- time of the end or question that a notification was claimed for
    unsettled INTEGER NOT NULL DEFAULT 0,       -- 1 while files are still to be written or removed
    result_path TEXT NOT NULL DEFAULT '',
    callback_url TEXT NOT NULL DEFAULT '',      -- is called when it finished or needs input
    called_back_at REAL,                        -- time of the end or question that a callback was stored for
    trace_parent TEXT NOT NULL DEFAULT '',      -- the span that started it, as a W3C traceparent
    traced_at REAL                              -- time of the end whose spans were sent
) STRICT, WITHOUT ROWID;
CREATE INDEX job_due ON job (next_at) WHERE next_at IS NOT NULL;
CREATE INDEX job_held ON job (holder) WHERE holder IS NOT NULL;
CREATE UNIQUE INDEX job_key ON job (owner, key) WHERE key IS NOT NULL;
CREATE INDEX job_same ON job (request_hash);
CREATE INDEX job_batch ON job (batch, created_at) WHERE batch <> '';
CREATE INDEX job_status ON job (status, created_at);
CREATE INDEX job_previous ON job (previous_job_id) WHERE previous_job_id IS NOT NULL;
-- The cost of a day is read from the index alone.
CREATE INDEX job_newest ON job (created_at, status, cost_usd, reserved_usd, cost_before_usd);
CREATE INDEX job_of_owner ON job (owner, created_at, status, cost_usd, reserved_usd, cost_before_usd) WHERE owner <> '';
CREATE INDEX job_calls_back ON job (finished_at) WHERE callback_url <> '';
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX job_unsearchable ON job (finished_at) WHERE in_search = 0 AND finished_at IS NOT NULL;
CREATE INDEX job_untold ON job (finished_at) WHERE delivered_at IS NULL AND finished_at IS NOT NULL;

-- One upstream response of a job.
CREATE TABLE turn (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    number INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    base_url TEXT NOT NULL,
    fingerprint TEXT NOT NULL DEFAULT '',       -- of the key that created it, salted and cut
    mode TEXT NOT NULL DEFAULT 'background_stream',
    rebuilt INTEGER NOT NULL DEFAULT 0,         -- 1 if its request repeats the whole conversation before it
    attempt INTEGER NOT NULL DEFAULT 0,
    sent_at REAL,
    response_id TEXT,
    sequence_number INTEGER,                    -- of the last stream event
    looks INTEGER NOT NULL DEFAULT 0,           -- retrieves
    looked_at REAL,
    missing INTEGER NOT NULL DEFAULT 0,         -- retrieves in a row that were answered with "not found"
    missing_since REAL,
    hollow INTEGER NOT NULL DEFAULT 0,          -- retrieves that showed `completed` without output
    detached INTEGER NOT NULL DEFAULT 0,        -- attempts to stream in a row without an event
    partial TEXT NOT NULL DEFAULT '',           -- the tail of the text so far
    reasoning TEXT NOT NULL DEFAULT '',         -- the tail of the reasoning so far
    timed_out_at REAL,                          -- when our own deadline had it cancelled
    acting INTEGER NOT NULL DEFAULT 0,          -- 1 if it ended by asking for calls
    asked_at REAL,                              -- since when the job waits for an answer
    usage TEXT,                                 -- JSON, of this turn alone
    cost_usd REAL,                              -- of this turn alone; null while it is not known
    PRIMARY KEY (job_id, number)
) STRICT, WITHOUT ROWID;
-- A webhook names only the response.
CREATE INDEX turn_response ON turn (response_id) WHERE response_id IS NOT NULL;

-- Apart from the turn, which is read and written at every poll, because a request may hold files.
CREATE TABLE request (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    body TEXT NOT NULL,                         -- JSON, of POST /responses
    PRIMARY KEY (job_id, turn)
) STRICT;

-- What the caller asked, in the caller's words. Apart from the job and the request, which also hold much else.
CREATE TABLE prompt (
    number INTEGER PRIMARY KEY,                 -- in the order of the jobs: the search index names a job by it
    job_id TEXT NOT NULL UNIQUE REFERENCES job (id) ON DELETE CASCADE,
    text TEXT NOT NULL
) STRICT;

-- What each turn did, item by item. The times say when a process first saw it.
CREATE TABLE step (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    position INTEGER NOT NULL,                  -- in the output of the turn
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    detail TEXT NOT NULL,
    error TEXT NOT NULL,
    seen_at REAL NOT NULL,
    finished_at REAL,                           -- null while it runs
    PRIMARY KEY (job_id, turn, position)
) STRICT, WITHOUT ROWID;

-- Apart from the job, because a report may have megabytes.
CREATE TABLE output (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    text TEXT NOT NULL,
    response TEXT NOT NULL,                     -- JSON, as upstream sent it
    bytes INTEGER NOT NULL DEFAULT 0,           -- of the text in UTF-8
    PRIMARY KEY (job_id, turn)
) STRICT;
-- The size of an output is stored behind it: without this index SQLite would read all of the output.
CREATE INDEX output_size ON output (job_id, turn, bytes);

-- What a turn asks for before the job can continue.
CREATE TABLE call (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    id TEXT NOT NULL,                           -- call_id, or the id of an approval request
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,
    needs TEXT NOT NULL,                        -- run, approval or output; '' until that is known
    state TEXT NOT NULL,                        -- open, approved, running or done
    output TEXT,                                -- JSON, its answer for upstream
    position INTEGER NOT NULL,
    started_at REAL,                            -- when a process here began to run it
    finished_at REAL,
    PRIMARY KEY (job_id, turn, id)
) STRICT, WITHOUT ROWID;

-- Files that go to the provider with a job and are deleted there after it.
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
    path TEXT NOT NULL,                         -- on a disk; of a job with an owner, on the team server
    bytes INTEGER NOT NULL,
    file_id TEXT NOT NULL DEFAULT '',           -- of a file in the next column; nobody can guess it
    data BLOB,                                  -- of a job with an owner, since replicas share no disk
    PRIMARY KEY (job_id, name)
) STRICT;
CREATE UNIQUE INDEX made_file ON made (file_id) WHERE file_id <> '';

-- What happened to a job, for people.
CREATE TABLE event (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    at REAL NOT NULL,
    kind TEXT NOT NULL,
    text TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX event_of_job ON event (job_id, at);

-- The texts that a search reads. The search index itself is made when it is first needed: see search_index.py.
CREATE VIEW searchable (number, title, prompt, output) AS
SELECT prompt.number, job.title, substr(prompt.text, 1, 200000), COALESCE(substr(output.text, 1, 200000), '')
FROM prompt JOIN job ON job.id = prompt.job_id LEFT JOIN output ON output.job_id = job.id AND output.turn = job.turn;

-- How many jobs have each status; counting them would take as long as there are jobs.
CREATE TABLE tally (
    status TEXT PRIMARY KEY,
    jobs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TRIGGER job_came AFTER INSERT ON job BEGIN
    INSERT INTO tally (status, jobs) VALUES (NEW.status, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER job_went AFTER DELETE ON job BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE status = OLD.status;
END;
CREATE TRIGGER job_moved AFTER UPDATE OF status ON job WHEN NEW.status <> OLD.status BEGIN
    UPDATE tally SET jobs = jobs - 1 WHERE status = OLD.status;
    INSERT INTO tally (status, jobs) VALUES (NEW.status, 1) ON CONFLICT DO UPDATE SET jobs = jobs + 1;
END;

-- What remains of a purged job.
CREATE TABLE tombstone (
    job_id TEXT PRIMARY KEY,
    owner TEXT NOT NULL DEFAULT '',
    status TEXT NOT NULL,
    finished_at REAL NOT NULL,
    created_at REAL,                            -- null if an older version deleted the job
    model TEXT NOT NULL DEFAULT '',
    preset TEXT NOT NULL DEFAULT '',
    client TEXT NOT NULL DEFAULT '',
    usage TEXT,                                 -- JSON
    cost_usd REAL                               -- what the job counts with in the budget of its day
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstone_day ON tombstone (created_at, cost_usd) WHERE created_at IS NOT NULL;

-- What an endpoint refused, with the answer that said so. A model "-name" stands for the parameter of that name.
CREATE TABLE mode (
    base_url TEXT NOT NULL,
    model TEXT NOT NULL,
    mode TEXT NOT NULL,                         -- background_stream, background or foreground; or 'refused'
    learned_at REAL NOT NULL,
    answer TEXT NOT NULL,
    PRIMARY KEY (base_url, model)
) STRICT, WITHOUT ROWID;

-- What a user of a team server may do. An owner without a row has the limits of the settings.
CREATE TABLE owner (
    name TEXT PRIMARY KEY,
    max_concurrent INTEGER,                     -- null means the setting's, also in the next two
    daily_budget_usd REAL,
    starts_per_minute INTEGER,
    key_ref TEXT NOT NULL DEFAULT ''            -- names the secret with the owner's key; never the key itself
) STRICT, WITHOUT ROWID;

-- The tokens of a team server. A token is shown once; only its hash is kept.
CREATE TABLE token (
    id TEXT PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,                  -- SHA-256, in hexadecimal
    owner TEXT NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    created_at REAL NOT NULL,
    expires_at REAL,                            -- null means never
    revoked_at REAL,
    last_used_at REAL
) STRICT, WITHOUT ROWID;

-- Who did what on a team server. Rows are only added.
CREATE TABLE audit (
    number INTEGER PRIMARY KEY,
    at REAL NOT NULL,
    owner TEXT NOT NULL,
    token_id TEXT NOT NULL,                     -- or the issuer of an OAuth token
    client TEXT NOT NULL,
    action TEXT NOT NULL,
    job_id TEXT NOT NULL DEFAULT '',
    cost_usd REAL,
    address TEXT NOT NULL                       -- where the request came from
) STRICT;

-- Webhooks of the provider, kept for as long as it repeats them. Each one only says which response to retrieve.
CREATE TABLE webhook (
    id TEXT PRIMARY KEY,                        -- of the message: the same if it is sent again
    base_url TEXT NOT NULL,
    response_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    received_at REAL NOT NULL,
    job_id TEXT,                                -- null while it is not known, '' if no job here has the response
    attempts INTEGER NOT NULL DEFAULT 0,        -- to find the job
    next_at REAL                                -- when the next attempt is due
) STRICT, WITHOUT ROWID;
CREATE INDEX webhook_received ON webhook (base_url, received_at);
CREATE INDEX webhook_of_response ON webhook (response_id);
CREATE INDEX webhook_due ON webhook (next_at) WHERE next_at IS NOT NULL;

-- The ends and questions of the jobs of owners, for hosts that poll them or have them sent.
CREATE TABLE feed (
    id TEXT PRIMARY KEY,                        -- of the event: the same wherever it is sent
    owner TEXT NOT NULL,
    number INTEGER,                             -- in the order of publication to the owner; null before that
    job_id TEXT NOT NULL,
    kind TEXT NOT NULL,                         -- finished or needs_input
    status TEXT NOT NULL,                       -- of the job at that time, as the next column
    error_code TEXT NOT NULL,
    batch TEXT NOT NULL,
    key TEXT NOT NULL,                          -- of the job; '' if it has none
    at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX feed_of_owner ON feed (owner, number);
CREATE INDEX feed_unpublished ON feed (at) WHERE number IS NULL;
CREATE INDEX feed_age ON feed (at);

-- Where events of the feed are sent, until they expire.
CREATE TABLE subscription (
    id TEXT PRIMARY KEY,                        -- derived from the owner, the event, the filter and the address
    owner TEXT NOT NULL,
    token_id TEXT NOT NULL,                     -- that it depends on; '' for an OAuth token, which no table has
    kind TEXT NOT NULL,                         -- as in the feed
    job_id TEXT NOT NULL,                       -- only events of this job; '' for all jobs
    batch TEXT NOT NULL,                        -- only events of this batch; '' for all jobs
    url TEXT NOT NULL,
    secret TEXT NOT NULL,                       -- of the receiver, which signs what is sent
    old_secret TEXT NOT NULL DEFAULT '',        -- signs as well until the next column, while the secret is changed
    old_secret_until REAL NOT NULL DEFAULT 0,
    created_at REAL NOT NULL,
    expires_at REAL NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX subscription_of_owner ON subscription (owner, kind);

-- Messages to the callers of jobs, until they are accepted or given up.
CREATE TABLE callback (
    id TEXT PRIMARY KEY,                        -- of the message: the same in each attempt
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    body TEXT NOT NULL,                         -- JSON
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at REAL NOT NULL,                      -- when it is sent again, unless its sender reports before
    subscription_id TEXT REFERENCES subscription (id) ON DELETE CASCADE, -- null if it goes to the job's own address
    number INTEGER                              -- of the event in the feed; null without a subscription
) STRICT, WITHOUT ROWID;
CREATE INDEX callback_due ON callback (next_at);
CREATE INDEX callback_of_job ON callback (job_id);
CREATE INDEX callback_of_subscription ON callback (subscription_id, number) WHERE subscription_id IS NOT NULL;

-- Files that owners upload to attach them to jobs. They are kept for a day.
CREATE TABLE shelf (
    id TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    name TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    created_at REAL NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX shelf_of_owner ON shelf (owner, bytes);
CREATE INDEX shelf_age ON shelf (created_at);
