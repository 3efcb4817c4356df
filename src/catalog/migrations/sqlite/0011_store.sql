-- Which blob store is this catalog's: what it does not name is removed there.
CREATE TABLE store (
    only_one INTEGER PRIMARY KEY CHECK (only_one = 1),
    id       TEXT NOT NULL
) STRICT;
