-- How much each project had, day by day.
CREATE TABLE usage (
    project INTEGER NOT NULL REFERENCES project (id),
    day     TEXT NOT NULL, -- YYYY-MM-DD, UTC
    exports INTEGER NOT NULL,
    bytes   INTEGER NOT NULL, -- of distinct blobs
    PRIMARY KEY (project, day)
) STRICT, WITHOUT ROWID;

CREATE INDEX usage_by_day ON usage (day);
