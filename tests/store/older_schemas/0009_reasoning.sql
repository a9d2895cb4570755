-- The tail of what the model has told of its reasoning so far.
ALTER TABLE turn ADD COLUMN reasoning TEXT NOT NULL DEFAULT '';
