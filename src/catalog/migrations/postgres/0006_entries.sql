-- Entries of GitHub's cache: exports of a kind of their own, and what is being
-- uploaded for one.

ALTER TABLE export ADD COLUMN kind smallint NOT NULL DEFAULT 0; -- 0: a cache, 1: an entry

-- What an export of that kind is called. There is one row of an export, so that
-- a foreign key costs little.
CREATE TABLE entry (
    export  bigint PRIMARY KEY REFERENCES export (key) ON DELETE CASCADE,
    size    bigint NOT NULL,  -- bytes of all of its layers, repetitions included
    project integer NOT NULL, -- the export's, as its ref
    ref     text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL
);

CREATE INDEX entry_by_name ON entry (project, ref, version, key, export);

CREATE TABLE upload (
    id      bigint PRIMARY KEY, -- random: whoever has it may write
    touched timestamptz NOT NULL,
    expires timestamptz NOT NULL,
    bytes   bigint NOT NULL DEFAULT 0, -- of its blocks
    size    bigint,           -- of what it became
    export  bigint,           -- that has it, if one does
    blocks  integer NOT NULL DEFAULT 0,
    project integer NOT NULL REFERENCES project (id),
    ref     text COLLATE "C" NOT NULL,
    key     text COLLATE "C" NOT NULL,
    version text COLLATE "C" NOT NULL,
    became  text              -- what it is by now; NULL: nothing yet
);

CREATE INDEX upload_by_name ON upload (project, key, version);
CREATE INDEX upload_by_expiry ON upload (expires);

-- A part of an upload; its bytes are a blob, which is pinned.
CREATE TABLE block (
    upload   bigint NOT NULL REFERENCES upload (id) ON DELETE CASCADE,
    size     bigint NOT NULL,
    start    bigint,  -- the byte where it begins, if its sender says that
    position integer, -- in the list of blocks, if there is one
    name     text COLLATE "C" NOT NULL,
    digest   bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (upload, name)
);

-- What all hubs know and nobody else.
CREATE TABLE secret (
    name  text COLLATE "C" PRIMARY KEY,
    value bytea NOT NULL
);
