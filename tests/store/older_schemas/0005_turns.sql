-- 1 once a turn ended by asking for calls: the job goes on with them and then with another turn.
ALTER TABLE turn ADD COLUMN acting INTEGER NOT NULL DEFAULT 0;
-- 1 where a turn's request tells all that was said before it.
ALTER TABLE turn ADD COLUMN rebuilt INTEGER NOT NULL DEFAULT 0;
UPDATE turn SET rebuilt = 1 WHERE number = 1 AND job_id IN (SELECT id FROM job WHERE context = 'rebuilt');
-- Since when somebody is waited for.
ALTER TABLE turn ADD COLUMN asked_at REAL;

-- Sums over the turns before the current one.
ALTER TABLE job ADD COLUMN usage_before TEXT;   -- JSON
ALTER TABLE job ADD COLUMN cost_before_usd REAL;
ALTER TABLE job ADD COLUMN max_cost_usd REAL;
-- Which tools of the user's own servers the job may call, JSON.
ALTER TABLE job ADD COLUMN toolbox TEXT NOT NULL DEFAULT '[]';

-- What a turn asks for before the job can go on.
CREATE TABLE call (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    id TEXT NOT NULL,                           -- call_id, or the id of an approval request
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    arguments TEXT NOT NULL,
    needs TEXT NOT NULL,                        -- run, approval or output; '' until that was found out
    state TEXT NOT NULL,                        -- open, approved, running or done
    output TEXT,                                -- JSON, what goes upstream as its answer
    position INTEGER NOT NULL,
    PRIMARY KEY (job_id, turn, id)
) STRICT, WITHOUT ROWID;
