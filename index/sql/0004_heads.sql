-- The items of a section apart from what else is to be known of it, so that they
-- are read only where they are needed. What there is was stored in one.
DROP TABLE section;
CREATE TABLE section (
	chain  INTEGER NOT NULL REFERENCES chain(id),
	object BLOB NOT NULL, -- the section's first
	head   BLOB NOT NULL,
	items  BLOB NOT NULL,
	PRIMARY KEY (chain, object)
) STRICT, WITHOUT ROWID;
UPDATE chain SET sections = 0;
