-- The refs of what has left the log and is kept for a lease, by project.
CREATE INDEX export_retired_by_ref ON export (project, ref) WHERE retired IS NOT NULL;
