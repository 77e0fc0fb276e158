-- What a source and a chain are called. A chain's root directory is the
-- child of the version (dir = -chain.id, name = '').
CREATE TABLE source (
	id   INTEGER PRIMARY KEY,
	name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE chain (
	id     INTEGER PRIMARY KEY,
	source INTEGER NOT NULL REFERENCES source(id),
	name   TEXT NOT NULL,
	UNIQUE (source, name)
) STRICT;

CREATE TABLE snapshot (
	num     INTEGER PRIMARY KEY AUTOINCREMENT, -- never used twice
	chain   INTEGER NOT NULL REFERENCES chain(id),
	key     INTEGER NOT NULL UNIQUE,
	indexed INTEGER NOT NULL DEFAULT 0,
	handle  TEXT NOT NULL,
	ident   TEXT NOT NULL,
	parent  TEXT NOT NULL,
	volume  TEXT NOT NULL,
	name    TEXT NOT NULL,
	time    INTEGER NOT NULL, -- ns
	host    TEXT NOT NULL,
	user    TEXT NOT NULL,
	message TEXT NOT NULL,
	files   INTEGER NOT NULL,
	size    INTEGER NOT NULL
) STRICT;
CREATE INDEX snapshot_chain ON snapshot (chain, key);

-- Owners as archives record them: number and name. Rows are never removed.
CREATE TABLE owner (
	id   INTEGER PRIMARY KEY,
	uid  INTEGER NOT NULL,
	gid  INTEGER NOT NULL,
	user BLOB NOT NULL,
	grp  BLOB NOT NULL,
	UNIQUE (uid, gid, user, grp)
) STRICT;

CREATE TABLE dir (
	id     INTEGER PRIMARY KEY,
	parent INTEGER NOT NULL, -- dir.id, or -chain.id for a root
	name   BLOB NOT NULL,
	UNIQUE (parent, name)
) STRICT;

-- content comes last so that listings never touch its overflow pages.
CREATE TABLE version (
	id      INTEGER PRIMARY KEY,
	dir     INTEGER NOT NULL,
	name    BLOB NOT NULL,
	since   INTEGER NOT NULL,
	until   INTEGER NOT NULL,
	child   INTEGER NOT NULL, -- dir.id, 0 for everything but directories
	meta    BLOB NOT NULL,    -- see codec.go
	content BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX version_path ON version (dir, name, since, until);
CREATE INDEX version_since ON version (since) WHERE since > 0;
CREATE INDEX version_until ON version (until) WHERE until > 0;

-- Where a version went that was joined with an equal neighbour.
CREATE TABLE moved (
	id     INTEGER PRIMARY KEY,
	target INTEGER NOT NULL
) STRICT;

-- The highest numbers given out, so that none is used twice.
CREATE TABLE counter (
	version INTEGER NOT NULL,
	dir     INTEGER NOT NULL
) STRICT;
INSERT INTO counter VALUES (0, 0);
