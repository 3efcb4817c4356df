-- Who did what, what was flushed, which tokens count no more, and what was
-- settled for a project. Times are microseconds since 1970, UTC.

CREATE TABLE audit (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      bigint NOT NULL,
    actor   text NOT NULL, -- the kind of whoever did it
    subject text,
    token   text,
    peer    text,
    request text,
    action  text NOT NULL,
    project text COLLATE "C", -- its name: an entry outlives what it is about
    ref     text COLLATE "C",
    scope   text COLLATE "C",
    details text -- a JSON object
);

CREATE INDEX audit_by_time ON audit (at);
CREATE INDEX audit_by_project ON audit (project, id);
CREATE INDEX audit_by_action ON audit (action, id);

CREATE TABLE flush (
    id      bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    project integer NOT NULL REFERENCES project (id),
    ref     text COLLATE "C", -- NULL: every one
    scope   text COLLATE "C", -- NULL: every one
    at      bigint NOT NULL,
    author  text NOT NULL,
    exports bigint NOT NULL
);

CREATE INDEX flush_by_project ON flush (project, id);
CREATE INDEX flush_by_time ON flush (at);

-- Where something was exported to since, of what a flush took.
CREATE TABLE flush_answer (
    flush bigint NOT NULL REFERENCES flush (id) ON DELETE CASCADE,
    ref   text COLLATE "C" NOT NULL,
    scope text COLLATE "C" NOT NULL,
    PRIMARY KEY (flush, ref, scope)
);

CREATE SEQUENCE revision;

CREATE TABLE revocation (
    token    text COLLATE "C" PRIMARY KEY, -- its id
    revision bigint NOT NULL UNIQUE,       -- in the order of visibility
    at       bigint NOT NULL,
    until    bigint NOT NULL,              -- then it has expired
    author   text NOT NULL,
    why      text NOT NULL
);

CREATE TABLE setting (
    project   integer PRIMARY KEY REFERENCES project (id),
    max_bytes bigint,
    max_age   bigint, -- seconds
    note      text NOT NULL,
    at        bigint NOT NULL,
    author    text NOT NULL
);
