-- The tables of SQLite's version 11: owners, their tokens and the audit log of a team server.

ALTER TABLE job ADD COLUMN owner TEXT COLLATE "C" NOT NULL DEFAULT ''; -- who started it; '' for a single user
DROP INDEX job_key;
CREATE UNIQUE INDEX job_key ON job (owner, key) WHERE key IS NOT NULL;
CREATE INDEX job_of_owner ON job (owner, created_at, status, cost_usd, reserved_usd, cost_before_usd) WHERE owner <> '';
ALTER TABLE job ADD COLUMN always_allowed TEXT NOT NULL DEFAULT '[]'; -- JSON, the tools that its user allows without being asked again
ALTER TABLE job ADD COLUMN lost_claims INTEGER NOT NULL DEFAULT 0; -- times that it was taken from a process that seemed dead
CREATE INDEX job_previous ON job (previous_job_id) WHERE previous_job_id IS NOT NULL;
ALTER TABLE tombstone ADD COLUMN owner TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE tombstone ADD COLUMN model TEXT NOT NULL DEFAULT '';
ALTER TABLE tombstone ADD COLUMN preset TEXT NOT NULL DEFAULT '';
ALTER TABLE tombstone ADD COLUMN client TEXT NOT NULL DEFAULT '';
ALTER TABLE tombstone ADD COLUMN usage TEXT; -- JSON

-- True if a webhook named its response since its step began.
ALTER TABLE job ADD COLUMN hinted BOOLEAN NOT NULL DEFAULT FALSE;
-- The address that is called when it finished or needs input.
ALTER TABLE job ADD COLUMN callback_url TEXT NOT NULL DEFAULT '';
-- Time of the end or question that a callback was stored for.
ALTER TABLE job ADD COLUMN called_back_at DOUBLE PRECISION;
-- The span that started it, as a W3C traceparent.
ALTER TABLE job ADD COLUMN trace_parent TEXT NOT NULL DEFAULT '';
-- Time of the end whose spans were sent.
ALTER TABLE job ADD COLUMN traced_at DOUBLE PRECISION;
CREATE INDEX job_calls_back ON job (finished_at) WHERE callback_url <> '';
-- A webhook names only the response.
CREATE INDEX turn_response ON turn (response_id) WHERE response_id IS NOT NULL;

-- What a user of a team server may do. An owner without a row has the limits of the settings.
CREATE TABLE owner (
    name TEXT COLLATE "C" PRIMARY KEY,
    max_concurrent INTEGER,                     -- null means the setting's, also in the next two
    daily_budget_usd DOUBLE PRECISION,
    starts_per_minute INTEGER,
    key_ref TEXT NOT NULL DEFAULT ''            -- names the secret with the owner's key; never the key itself
);

-- The tokens of a team server. A token is shown once; only its hash is kept.
CREATE TABLE token (
    id TEXT COLLATE "C" PRIMARY KEY,
    hash TEXT NOT NULL UNIQUE,                  -- SHA-256, in hexadecimal
    owner TEXT COLLATE "C" NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION,                -- null means never
    revoked_at DOUBLE PRECISION,
    last_used_at DOUBLE PRECISION
);

-- Who did what on a team server. Rows are only added.
CREATE TABLE audit (
    number BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at DOUBLE PRECISION NOT NULL,
    owner TEXT COLLATE "C" NOT NULL,
    token_id TEXT NOT NULL,                     -- or the issuer of an OAuth token
    client TEXT NOT NULL,
    action TEXT NOT NULL,
    job_id TEXT NOT NULL DEFAULT '',
    cost_usd DOUBLE PRECISION,
    address TEXT NOT NULL                       -- where the request came from
);

-- Webhooks of the provider, kept for as long as it repeats them. Each one only says which response to retrieve.
CREATE TABLE webhook (
    id TEXT COLLATE "C" PRIMARY KEY,            -- of the message: the same if it is sent again
    base_url TEXT NOT NULL,
    response_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    received_at DOUBLE PRECISION NOT NULL,
    job_id TEXT COLLATE "C",                    -- null while it is not known, '' if no job here has the response
    attempts INTEGER NOT NULL DEFAULT 0,        -- to find the job
    next_at DOUBLE PRECISION                    -- when the next attempt is due
);
CREATE INDEX webhook_received ON webhook (base_url, received_at);
CREATE INDEX webhook_of_response ON webhook (response_id);
CREATE INDEX webhook_due ON webhook (next_at) WHERE next_at IS NOT NULL;

-- Where events of the feed are sent, until they expire.
CREATE TABLE subscription (
    id TEXT COLLATE "C" PRIMARY KEY,            -- derived from the owner, the event, the filter and the address
    owner TEXT COLLATE "C" NOT NULL,
    token_id TEXT COLLATE "C" NOT NULL,         -- that it depends on; '' for an OAuth token, which no table has
    kind TEXT NOT NULL,                         -- as in the feed
    job_id TEXT COLLATE "C" NOT NULL,           -- only events of this job; '' for all jobs
    batch TEXT NOT NULL,                        -- only events of this batch; '' for all jobs
    url TEXT NOT NULL,
    secret TEXT NOT NULL,                       -- of the receiver, which signs what is sent
    old_secret TEXT NOT NULL DEFAULT '',        -- signs as well until the next column, while the secret is changed
    old_secret_until DOUBLE PRECISION NOT NULL DEFAULT 0,
    created_at DOUBLE PRECISION NOT NULL,
    expires_at DOUBLE PRECISION NOT NULL
);
CREATE INDEX subscription_of_owner ON subscription (owner, kind);

-- The ends and questions of the jobs of owners, for hosts that poll them or have them sent.
CREATE TABLE feed (
    id TEXT COLLATE "C" PRIMARY KEY,            -- of the event: the same wherever it is sent
    owner TEXT COLLATE "C" NOT NULL,
    number BIGINT,                              -- in the order of publication to the owner; null before that
    job_id TEXT COLLATE "C" NOT NULL,
    kind TEXT NOT NULL,                         -- finished or needs_input
    status TEXT NOT NULL,                       -- of the job at that time, as the next column
    error_code TEXT NOT NULL,
    batch TEXT NOT NULL,
    key TEXT NOT NULL,                          -- of the job; '' if it has none
    at DOUBLE PRECISION NOT NULL
);
CREATE UNIQUE INDEX feed_of_owner ON feed (owner, number);
CREATE INDEX feed_unpublished ON feed (at) WHERE number IS NULL;
CREATE INDEX feed_age ON feed (at);

-- Messages to the callers of jobs, until they are accepted or given up.
CREATE TABLE callback (
    id TEXT COLLATE "C" PRIMARY KEY,            -- of the message: the same in each attempt
    job_id TEXT COLLATE "C" NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    body TEXT NOT NULL,                         -- JSON
    created_at DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_at DOUBLE PRECISION NOT NULL,          -- when it is sent again, unless its sender reports before
    -- Null if it goes to the job's own address.
    subscription_id TEXT COLLATE "C" REFERENCES subscription (id) ON DELETE CASCADE,
    number BIGINT                               -- of the event in the feed; null without a subscription
);
CREATE INDEX callback_due ON callback (next_at);
CREATE INDEX callback_of_job ON callback (job_id);
CREATE INDEX callback_of_subscription ON callback (subscription_id, number) WHERE subscription_id IS NOT NULL;

-- Files that runs of jobs with an owner made, since replicas share no disk. Nobody can guess an id.
ALTER TABLE made ADD COLUMN file_id TEXT COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE made ADD COLUMN data BYTEA;
CREATE UNIQUE INDEX made_file ON made (file_id) WHERE file_id <> '';

-- Files that owners upload to attach them to jobs. They are kept for a day.
CREATE TABLE shelf (
    id TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    name TEXT NOT NULL,
    bytes BIGINT NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    data BYTEA NOT NULL
);
CREATE INDEX shelf_of_owner ON shelf (owner, bytes);
CREATE INDEX shelf_age ON shelf (created_at);
