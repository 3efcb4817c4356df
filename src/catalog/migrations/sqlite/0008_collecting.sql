-- When an export was last of use, and how blobs that nothing names are removed.

-- Microseconds since 1970, UTC; NULL: not known to be since it was written.
ALTER TABLE export ADD COLUMN used INTEGER;

-- Blobs that somebody is about to store or to name.
CREATE TABLE pin (
    digest  BLOB NOT NULL CHECK (length(digest) = 32),
    holder  INTEGER NOT NULL, -- random: whoever is about to
    expires INTEGER NOT NULL, -- microseconds since 1970, UTC
    PRIMARY KEY (digest, holder)
) STRICT, WITHOUT ROWID;

CREATE INDEX pin_by_expiry ON pin (expires);

-- Blobs that may be named no more.
CREATE TABLE candidate (
    digest BLOB PRIMARY KEY NOT NULL CHECK (length(digest) = 32),
    due    INTEGER NOT NULL -- not looked at before
) STRICT, WITHOUT ROWID;

CREATE INDEX candidate_by_due ON candidate (due);

-- Blobs that are being removed.
CREATE TABLE condemned (
    digest  BLOB PRIMARY KEY NOT NULL CHECK (length(digest) = 32),
    expires INTEGER NOT NULL -- nobody removes it after that
) STRICT, WITHOUT ROWID;
