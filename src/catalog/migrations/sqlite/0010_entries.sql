-- Entries of GitHub's cache: exports of a kind of their own, and what is being
-- uploaded for one. Times are microseconds since 1970, UTC.

ALTER TABLE export ADD COLUMN kind INTEGER NOT NULL DEFAULT 0; -- 0: a cache, 1: an entry

-- What an export of that kind is called.
CREATE TABLE entry (
    export  INTEGER PRIMARY KEY REFERENCES export (id) ON DELETE CASCADE,
    project INTEGER NOT NULL REFERENCES project (id), -- the export's, as its ref
    ref     TEXT NOT NULL,
    key     TEXT NOT NULL,
    version TEXT NOT NULL,
    size    INTEGER NOT NULL -- bytes of all of its layers, repetitions included
) STRICT;

CREATE INDEX entry_by_name ON entry (project, ref, version, key, export);

CREATE TABLE upload (
    id      INTEGER PRIMARY KEY, -- random: whoever has it may write
    project INTEGER NOT NULL REFERENCES project (id),
    ref     TEXT NOT NULL,
    key     TEXT NOT NULL,
    version TEXT NOT NULL,
    touched INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    blocks  INTEGER NOT NULL DEFAULT 0,
    bytes   INTEGER NOT NULL DEFAULT 0, -- of those
    became  TEXT,   -- what it is by now; NULL: nothing yet
    size    INTEGER, -- of that
    export  INTEGER -- that has it, if one does
) STRICT;

CREATE INDEX upload_by_name ON upload (project, key, version);
CREATE INDEX upload_by_expiry ON upload (expires);

-- A part of an upload; its bytes are a blob, which is pinned.
CREATE TABLE block (
    upload   INTEGER NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    name     TEXT NOT NULL,
    digest   BLOB NOT NULL CHECK (length(digest) = 32),
    size     INTEGER NOT NULL,
    start    INTEGER, -- the byte where it begins, if its sender says that
    position INTEGER, -- in the list of blocks, if there is one
    PRIMARY KEY (upload, name)
) STRICT, WITHOUT ROWID;

-- What all hubs know and nobody else.
CREATE TABLE secret (
    name  TEXT PRIMARY KEY NOT NULL,
    value BLOB NOT NULL
) STRICT;
