-- Who did what, what was flushed, which tokens count no more, and what was
-- settled for a project. Times are microseconds since 1970, UTC.

CREATE TABLE audit (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    at      INTEGER NOT NULL,
    actor   TEXT NOT NULL, -- the kind of whoever did it
    subject TEXT,
    token   TEXT,
    peer    TEXT,
    request TEXT,
    action  TEXT NOT NULL,
    project TEXT, -- its name: an entry outlives what it is about
    ref     TEXT,
    scope   TEXT,
    details TEXT  -- a JSON object
) STRICT;

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_project ON audit (project, id);
CREATE INDEX audit_by_action ON audit (action, id);

CREATE TABLE flush (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    project INTEGER NOT NULL REFERENCES project (id),
    ref     TEXT, -- NULL: every one
    scope   TEXT, -- NULL: every one
    at      INTEGER NOT NULL,
    author  TEXT NOT NULL,
    exports INTEGER NOT NULL
) STRICT;

CREATE INDEX flush_by_project ON flush (project, id);
CREATE INDEX flush_by_time ON flush (at);

-- Where something was exported to since, of what a flush took.
CREATE TABLE flush_answer (
    flush INTEGER NOT NULL REFERENCES flush (id) ON DELETE CASCADE,
    ref   TEXT NOT NULL,
    scope TEXT NOT NULL,
    PRIMARY KEY (flush, ref, scope)
) STRICT, WITHOUT ROWID;

CREATE TABLE revocation (
    revision INTEGER PRIMARY KEY AUTOINCREMENT,
    token    TEXT NOT NULL UNIQUE, -- its id
    at       INTEGER NOT NULL,
    until    INTEGER NOT NULL,     -- then it has expired
    author   TEXT NOT NULL,
    why      TEXT NOT NULL
) STRICT;

CREATE TABLE setting (
    project   INTEGER PRIMARY KEY REFERENCES project (id),
    max_bytes INTEGER,
    max_age   INTEGER, -- seconds
    note      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    author    TEXT NOT NULL
) STRICT;
