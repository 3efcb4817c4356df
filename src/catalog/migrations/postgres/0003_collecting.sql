-- When an export was last of use, and how blobs that nothing names are removed.

-- Microseconds since 1970, UTC; NULL: not known to be since it was written.
ALTER TABLE export ADD COLUMN used bigint;

-- Blobs that somebody is about to store or to name.
CREATE TABLE pin (
    holder  bigint NOT NULL, -- random: whoever is about to
    expires timestamptz NOT NULL,
    digest  bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (digest, holder)
);

CREATE INDEX pin_by_expiry ON pin (expires);

-- Blobs that may be named no more.
CREATE TABLE candidate (
    due    timestamptz NOT NULL, -- not looked at before
    digest bytea PRIMARY KEY CHECK (length(digest) = 32)
);

CREATE INDEX candidate_by_due ON candidate (due);

-- Blobs that are being removed.
CREATE TABLE condemned (
    expires timestamptz NOT NULL, -- nobody removes it after that
    digest  bytea PRIMARY KEY CHECK (length(digest) = 32)
);
