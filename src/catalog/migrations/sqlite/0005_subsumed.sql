-- For which export another one left the log, so that whoever has both in a
-- union may keep it.

CREATE TABLE subsumed (
    export INTEGER PRIMARY KEY, -- has left the log
    by     INTEGER NOT NULL     -- has all that it had
) STRICT;

CREATE INDEX subsumed_by ON subsumed (by);
