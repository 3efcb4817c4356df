-- The steps that made the records of an export, as far as they are known.

CREATE TABLE step (
    export      INTEGER NOT NULL REFERENCES export (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL,
    project     INTEGER NOT NULL REFERENCES project (id), -- the export's, for step_by_record
    record      TEXT NOT NULL,    -- a record of the config
    created_at  INTEGER NOT NULL, -- when its result was made: nanoseconds since 1970, UTC
    name        TEXT NOT NULL,
    duration    INTEGER NOT NULL, -- milliseconds
    PRIMARY KEY (export, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX step_by_record ON step (project, record, created_at);
