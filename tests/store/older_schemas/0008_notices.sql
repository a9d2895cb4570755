-- Which end of the job, or which question of its, the user's own command was given: the time of that.
ALTER TABLE job ADD COLUMN noticed_at REAL;
CREATE INDEX job_finished ON job (finished_at) WHERE finished_at IS NOT NULL;
