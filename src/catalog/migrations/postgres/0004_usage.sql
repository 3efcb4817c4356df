-- How much each project had, day by day.
CREATE TABLE usage (
    project integer NOT NULL REFERENCES project (id),
    day     date NOT NULL, -- UTC
    exports bigint NOT NULL,
    bytes   bigint NOT NULL, -- of distinct blobs
    PRIMARY KEY (project, day)
);

CREATE INDEX usage_by_day ON usage (day);
