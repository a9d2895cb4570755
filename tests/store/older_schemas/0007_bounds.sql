-- When the job began to run, later by as long as somebody was waited for: its time limit holds for all its turns.
ALTER TABLE job ADD COLUMN running_since REAL;
UPDATE job SET running_since = (SELECT MAX(sent_at) FROM turn WHERE job_id = job.id);

-- Where a later turn's cost is not known, what the turns before it cost counts to the day.
DROP INDEX job_newest;
CREATE INDEX job_newest ON job (created_at, status, cost_usd, reserved_usd, cost_before_usd);
