package fusefs

import "testing"

func TestHabits(t *testing.T) {
	const ls, find, rsync = 1, 2, 3
	var h habits
	if !h.list(ls, 10, 0) || !h.list(ls, 10, 500) {
		t.Error("the first listing lacks attributes")
	}
	h.list(find, 10, 0)
	for dir := uint64(11); dir < 20; dir++ {
		if h.list(find, dir, 0) || !h.namesOnly(find) {
			t.Errorf("directory %d: attributes for one who never looks at a file", dir)
		}
		h.look(find, 10) // a file elsewhere, as open(2) looks it up
		h.look(rsync, dir)
	}
	h.list(rsync, 10, 0)
	if h.list(rsync, 11, 0) {
		t.Error("the second listing should be a trial")
	}
	h.look(rsync, 11)
	if !h.list(rsync, 11, 900) || !h.list(rsync, 12, 0) || h.namesOnly(rsync) {
		t.Error("no attributes for one who looked at a file")
	}
	if h.namesOnly(99) {
		t.Error("an unknown thread gets names alone")
	}
	for thread := range uint32(10 * habitsKept) {
		h.list(thread+100, 1, 0)
	}
	if len(h.of) > habitsKept {
		t.Errorf("%d threads are remembered", len(h.of))
	}
}

// A directory's descriptor is not kept much longer than a name is believed.
func TestOpenDirsAreClosed(t *testing.T) {
	volume := newVolume(t)
	for _, d := range []string{"a", "b", "c/d"} {
		write(t, volume+"/"+d+"/file", d)
	}
	mnt := mountLive(t, volume, newFakeHistory(), nil)
	before := openFDs(t)
	for _, d := range []string{"a", "b", "c/d"} {
		write(t, mnt+"/"+d+"/new", "new")
	}
	eventually(t, 4*dirsKeptFor, "no descriptor left", func() bool { return openFDs(t) <= before })
}
