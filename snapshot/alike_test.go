package snapshot

import "testing"

func TestAlike(t *testing.T) {
	const end = (1<<31 - 1 - 2*24*60*60) * int64(1e9)
	base := Entry{
		Version: 1, Name: "f", Mode: 0o100644, UID: 1, GID: 2, User: "ann", Group: "staff", Size: 10, Mtime: 5, Ctime: 6,
		Xattrs: []Xattr{{"user.a", []byte("b")}}, LinkID: 7, Nlink: 2,
	}
	for what, c := range map[string]struct {
		change func(e *Entry)
		alike  bool
	}{
		"nothing":           {func(*Entry) {}, true},
		"number":            {func(e *Entry) { e.Version = 2 }, true},
		"holes":             {func(e *Entry) { e.Holes = 4096 }, true},
		"access":            {func(e *Entry) { e.Atime = 9 }, true},
		"birth unknown":     {func(e *Entry) { e.Birth = 9 }, true},
		"ctime unknown":     {func(e *Entry) { e.Ctime = 0 }, true},
		"owner has no name": {func(e *Entry) { e.User, e.Group = "", "" }, true},
		"ctime":             {func(e *Entry) { e.Ctime++ }, false},
		"mtime":             {func(e *Entry) { e.Mtime++ }, false},
		"mode":              {func(e *Entry) { e.Mode = 0o100600 }, false},
		"owner":             {func(e *Entry) { e.UID = 9 }, false},
		"owner's name":      {func(e *Entry) { e.User = "bob" }, false},
		"size":              {func(e *Entry) { e.Size++ }, false},
		"attribute":         {func(e *Entry) { e.Xattrs = []Xattr{{"user.a", []byte("c")}} }, false},
		"no attribute":      {func(e *Entry) { e.Xattrs = nil }, false},
		"flags":             {func(e *Entry) { e.Flags = FlagImmutable }, false},
		"links":             {func(e *Entry) { e.Nlink = 3 }, false},
		"damage":            {func(e *Entry) { e.Damaged = true }, false},
	} {
		other := base
		c.change(&other)
		if Alike(&base, &other) != c.alike || Alike(&other, &base) != c.alike {
			t.Errorf("%s: alike is not %t", what, c.alike)
		}
	}
	for _, c := range []struct {
		a, b int64
		same bool
	}{{1, 1, true}, {1, 2, false}, {-5, 0, true}, {-5, -6, false}, {0, 1, false}, {end + 7, end, true}, {end + 7, end + 8, false}, {end - 1, end, false}} {
		if SameTime(c.a, c.b) != c.same || SameTime(c.b, c.a) != c.same {
			t.Errorf("%d and %d are the same: not %t", c.a, c.b, c.same)
		}
	}
	made, known := Entry{Mode: 0o040755}, Entry{Mode: 0o040700, UID: 5, Mtime: 1, Ctime: 1}
	if file := (Entry{Mode: 0o100755}); !Alike(&made, &known) || Alike(&made, &file) {
		t.Error("a directory without times is not like every directory and nothing else")
	}
	link, linked := Entry{Mode: 0o120777, Target: "x", Nlink: 1}, Entry{Mode: 0o120777, Target: "x", Nlink: 2, LinkID: 3}
	if !Alike(&link, &linked) {
		t.Error("hard links of a symbolic link count")
	}
}
