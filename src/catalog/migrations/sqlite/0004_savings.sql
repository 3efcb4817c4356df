-- Who ran a step, and what builds were saved.

ALTER TABLE step ADD COLUMN builder TEXT; -- a host; NULL: that of the export
ALTER TABLE step ADD COLUMN daemon TEXT;  -- its own id, where it is known

-- One row for all builds of a day, however many.
CREATE TABLE saving (
    project   INTEGER NOT NULL REFERENCES project (id),
    ref       TEXT NOT NULL,
    day       TEXT NOT NULL, -- YYYY-MM-DD, UTC
    builds    INTEGER NOT NULL,
    steps     INTEGER NOT NULL,
    cached    INTEGER NOT NULL, -- of those steps
    saved     INTEGER NOT NULL, -- milliseconds
    estimated INTEGER NOT NULL, -- of those milliseconds
    PRIMARY KEY (project, ref, day)
) STRICT, WITHOUT ROWID;
