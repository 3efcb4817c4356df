-- Who may still read what has left the log, and what has left it.

CREATE TABLE lease (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    expires INTEGER NOT NULL -- microseconds since 1970, UTC
) STRICT;

-- The newest lease when the export left the log; NULL while it is in it.
ALTER TABLE export ADD COLUMN retired INTEGER;

CREATE INDEX export_retired ON export (retired) WHERE retired IS NOT NULL;
