-- What is asked of many jobs is answered from an index: the newest in a status, those that go on, what a day cost.
-- A partial index over the open statuses served no question that names fewer of them.
DROP INDEX job_open;
CREATE INDEX job_status ON job (status, created_at);
DROP INDEX job_newest;
CREATE INDEX job_newest ON job (created_at, status, cost_usd, reserved_usd);

-- How many jobs stand where; counting them takes as long as there are jobs.
CREATE TABLE tally (
    status TEXT PRIMARY KEY,
    jobs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tally (status, jobs) SELECT status, COUNT(*) FROM job GROUP BY status;
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

-- The size of an output stands behind the output itself, all of which would be read for it.
CREATE INDEX output_size ON output (job_id, turn, bytes);

-- Apart from the turn, which is read at every look and written at every progress, because it may hold files.
CREATE TABLE request (
    job_id TEXT NOT NULL REFERENCES job (id) ON DELETE CASCADE,
    turn INTEGER NOT NULL,
    body TEXT NOT NULL,                         -- JSON, of POST /responses
    PRIMARY KEY (job_id, turn)
) STRICT;
INSERT INTO request (job_id, turn, body) SELECT job_id, number, request FROM turn;
ALTER TABLE turn DROP COLUMN request;
