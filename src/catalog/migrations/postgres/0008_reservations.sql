-- When an upload was reserved, and when the pins of its blocks were renewed
-- last.
ALTER TABLE upload ADD COLUMN created timestamptz NOT NULL DEFAULT now();
ALTER TABLE upload ADD COLUMN renewed timestamptz NOT NULL DEFAULT now();

-- Those that nobody has finished are counted.
CREATE INDEX upload_open ON upload (project, ref, expires) WHERE became IS NULL;
