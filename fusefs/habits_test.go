package fusefs

import "testing"

func TestHabits(t *testing.T) {
	const ls, find, rsync = 1, 2, 3
	var h habits
	if !h.open(ls, 10) {
		t.Error("the first listing lacks attributes")
	}
	h.open(find, 10)
	for dir := uint64(11); dir < 20; dir++ {
		if h.open(find, dir) || !h.namesOnly(find) {
			t.Errorf("directory %d: attributes for one who never looks at a file", dir)
		}
		h.look(find, 10) // a file elsewhere, as open(2) looks it up
		h.look(rsync, dir)
	}
	h.open(rsync, 10)
	if h.open(rsync, 11) {
		t.Error("the second listing should be a trial")
	}
	h.look(rsync, 11)
	if !h.open(rsync, 12) || h.namesOnly(rsync) {
		t.Error("no attributes for one who looked at a file")
	}
	if h.namesOnly(99) {
		t.Error("an unknown thread gets names alone")
	}
	for thread := range uint32(10 * habitsKept) {
		h.open(thread+100, 1)
	}
	if len(h.of) > habitsKept {
		t.Errorf("%d threads are remembered", len(h.of))
	}
}

// A listing that the kernel keeps is taken from it for somebody who wants the
// attributes that it lacks, and once only.
func TestListingWithoutAttributes(t *testing.T) {
	var h habits
	if h.stale(1, true) || h.stale(1, false) || h.stale(1, false) {
		t.Error("the kernel had nothing that was in the way")
	}
	if !h.stale(1, true) || h.stale(1, true) {
		t.Error("the bare listing had to go, once")
	}
	for dir := range uint64(2 * namedKept) {
		h.stale(dir, false)
	}
	if len(h.named) > namedKept {
		t.Errorf("%d directories are remembered", len(h.named))
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
