-- The append-only log of exports, and the layers that each names.

CREATE TABLE project (
    id   INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE export (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    project       INTEGER NOT NULL REFERENCES project (id),
    ref           TEXT NOT NULL,
    scope         TEXT NOT NULL,
    time          INTEGER NOT NULL, -- microseconds since 1970, UTC
    builder       TEXT NOT NULL,
    records       INTEGER NOT NULL,
    layers        INTEGER NOT NULL, -- distinct blobs
    bytes         INTEGER NOT NULL, -- of those
    config_digest BLOB NOT NULL CHECK (length(config_digest) = 32),
    config_size   INTEGER NOT NULL,
    config        BLOB NOT NULL     -- zstd; last, so that a list never reads it
) STRICT;

CREATE INDEX export_by_place ON export (project, ref, scope, id);
CREATE INDEX export_by_ref ON export (project, ref, id); -- any scope

CREATE TABLE layer (
    export      INTEGER NOT NULL REFERENCES export (id) ON DELETE CASCADE,
    position    INTEGER NOT NULL, -- in the manifest
    project     INTEGER NOT NULL REFERENCES project (id), -- the export's, for layer_by_digest
    digest      BLOB NOT NULL CHECK (length(digest) = 32),
    size        INTEGER NOT NULL,
    media_type  TEXT NOT NULL,
    diff_id     BLOB CHECK (length(diff_id) = 32),
    created_at  TEXT, -- RFC 3339, with all its digits
    annotations TEXT, -- what else there is, as a JSON object
    PRIMARY KEY (export, position)
) STRICT, WITHOUT ROWID;

CREATE INDEX layer_by_digest ON layer (digest, project, size);
