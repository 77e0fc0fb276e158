-- A row's meta and content tell holes now: what there is was read without them.
DELETE FROM version;
DELETE FROM moved;
DELETE FROM dir;
DELETE FROM section;
UPDATE chain SET sections = 0;
UPDATE snapshot SET indexed = 0;

-- A directory's directories, to count them.
CREATE INDEX version_child ON version (dir, since, until) WHERE child > 0;
