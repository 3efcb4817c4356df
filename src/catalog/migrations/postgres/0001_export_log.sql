-- The append-only log of exports, the layers and steps of each, leases, what
-- was uploaded and what was saved. Rows of layers and steps go with their
-- export by hand: a foreign key would be looked up for each of ten thousand.
-- Names sort by bytes, as in SQLite.

CREATE TABLE project (
    id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text COLLATE "C" NOT NULL UNIQUE
);

CREATE SEQUENCE export_id;

CREATE TABLE export (
    key           bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- for its layers and steps
    id            bigint UNIQUE, -- in the order of the log; given last, so that it is NULL for nobody else
    project       integer NOT NULL REFERENCES project (id),
    ref           text COLLATE "C" NOT NULL,
    scope         text COLLATE "C" NOT NULL,
    written       bigint NOT NULL, -- microseconds since 1970, UTC
    builder       text NOT NULL,
    records       bigint NOT NULL,
    layers        bigint NOT NULL, -- distinct blobs
    bytes         bigint NOT NULL, -- of those
    retired       bigint,          -- the newest lease when it left the log; NULL while it is in it
    config_digest bytea NOT NULL CHECK (length(config_digest) = 32),
    config_size   bigint NOT NULL,
    manifest_size bigint NOT NULL,
    config        bytea NOT NULL,  -- zstd
    manifest      bytea NOT NULL   -- zstd of the layer descriptors as JSON
);

-- They are compressed.
ALTER TABLE export ALTER COLUMN config SET STORAGE EXTERNAL;
ALTER TABLE export ALTER COLUMN manifest SET STORAGE EXTERNAL;

CREATE INDEX export_by_project ON export (project, id) WHERE retired IS NULL;
CREATE INDEX export_by_ref ON export (project, ref, id) WHERE retired IS NULL;
CREATE INDEX export_by_place ON export (project, ref, scope, id) WHERE retired IS NULL;
CREATE INDEX export_retired ON export (retired) WHERE retired IS NOT NULL;

-- Which blobs an export names, each once; the rest is in its manifest.
CREATE TABLE layer (
    export  bigint NOT NULL,  -- its key
    size    bigint NOT NULL,
    project integer NOT NULL, -- the export's, for layer_by_digest
    digest  bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (export, digest)
);

CREATE INDEX layer_by_digest ON layer (digest, project) INCLUDE (export, size);

-- The steps that made its records, as far as they are known.
CREATE TABLE step (
    export     bigint NOT NULL,  -- its key
    created_at bigint NOT NULL,  -- when its result was made: nanoseconds since 1970, UTC
    duration   bigint NOT NULL,  -- milliseconds
    nth        integer NOT NULL,
    project    integer NOT NULL, -- the export's, for step_by_record
    record     text COLLATE "C" NOT NULL, -- a record of the config
    name       text NOT NULL,
    builder    text,             -- a host; NULL: that of the export
    daemon     text,             -- its own id, where it is known
    PRIMARY KEY (export, nth)
);

CREATE INDEX step_by_record ON step (project, record, created_at);

-- Who may still read what has left the log.
CREATE TABLE lease (
    number  bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of taking
    token   bigint NOT NULL UNIQUE, -- random: what its holder knows it by
    expires timestamptz NOT NULL
);

CREATE INDEX lease_by_expiry ON lease (expires);

-- For which export another one left the log.
CREATE TABLE subsumed (
    export bigint PRIMARY KEY, -- has left the log
    heir   bigint NOT NULL     -- has all that it had
);

CREATE INDEX subsumed_by_heir ON subsumed (heir);

-- Blobs that a project may name though none of its exports does yet.
CREATE TABLE possession (
    size    bigint NOT NULL,
    expires timestamptz NOT NULL,
    project integer NOT NULL REFERENCES project (id),
    digest  bytea NOT NULL CHECK (length(digest) = 32),
    ref     text COLLATE "C" NOT NULL, -- for which it was uploaded
    PRIMARY KEY (project, digest, ref)
);

CREATE INDEX possession_by_digest ON possession (digest) INCLUDE (size, expires);
CREATE INDEX possession_by_expiry ON possession (expires);

-- One row for all builds of a day, however many.
CREATE TABLE saving (
    project   integer NOT NULL REFERENCES project (id),
    ref       text COLLATE "C" NOT NULL,
    day       date NOT NULL, -- UTC
    builds    bigint NOT NULL,
    steps     bigint NOT NULL,
    cached    bigint NOT NULL, -- of those steps
    saved     bigint NOT NULL, -- milliseconds
    estimated bigint NOT NULL, -- of those milliseconds
    PRIMARY KEY (project, ref, day)
);
