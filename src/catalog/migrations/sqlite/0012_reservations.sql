-- When an upload was reserved, in microseconds since 1970, UTC; NULL where an
-- older layerd did, for which the last sign of life stands.
ALTER TABLE upload ADD COLUMN created INTEGER;

-- When the pins of its blocks were renewed last.
ALTER TABLE upload ADD COLUMN renewed INTEGER;

-- Those that nobody has finished are counted.
CREATE INDEX upload_open ON upload (project, ref, expires) WHERE became IS NULL;
