-- What the stream of a chain's newest indexed snapshot became, by sections:
-- see inventory.go. The row without object has the versions that no item
-- stands for alone.
CREATE TABLE section (
	chain  INTEGER NOT NULL REFERENCES chain(id),
	object BLOB NOT NULL, -- the section's first
	stream BLOB NOT NULL,
	PRIMARY KEY (chain, object)
) STRICT, WITHOUT ROWID;

-- The key of that snapshot; 0 where there is none.
ALTER TABLE chain ADD COLUMN sections INTEGER NOT NULL DEFAULT 0;

-- Keys the checksums of items.
ALTER TABLE counter ADD COLUMN secret BLOB NOT NULL DEFAULT x'';
UPDATE counter SET secret = randomblob(16);
