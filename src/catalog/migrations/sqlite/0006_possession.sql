-- Leases by a number that can't be guessed, and who has uploaded what.

ALTER TABLE lease ADD COLUMN token INTEGER; -- random; NULL: an older layerd names it by its id

CREATE UNIQUE INDEX lease_by_token ON lease (token);

-- Blobs that a project may name though none of its exports does yet.
CREATE TABLE possession (
    project INTEGER NOT NULL REFERENCES project (id),
    digest  BLOB NOT NULL CHECK (length(digest) = 32),
    ref     TEXT NOT NULL, -- for which it was uploaded
    size    INTEGER NOT NULL,
    expires INTEGER NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (project, digest, ref)
) STRICT, WITHOUT ROWID;

CREATE INDEX possession_by_digest ON possession (digest, expires, size);
CREATE INDEX possession_by_expiry ON possession (expires);
