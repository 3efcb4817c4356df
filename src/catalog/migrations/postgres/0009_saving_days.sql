-- How many refs a project has on a day, and what is old.
CREATE INDEX saving_by_day ON saving (day, project);
