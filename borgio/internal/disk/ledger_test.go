package disk

import (
	"bufio"
	"bytes"
	"maps"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/heap"
)

// FuzzHints: whatever is read is written back as what is read the same, within the
// bound of memory.
func FuzzHints(f *testing.F) {
	for _, b := range frozen(f, "*/hints.*") {
		f.Add(b)
	}
	f.Add([]byte("\x85\xa7version\x02\xa8segments\x80\xa7compact\x81\x01\xff\xb1storage_quota_use\x00\xacshadow_index\x81\xa1x\x91\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		l := newLedger()
		var err error
		if over := heap.Over(64*len(data), func() { err = l.unpack(data) }); over > 0 {
			t.Errorf("%d bytes over the bound for %d", over, len(data))
		}
		if err != nil {
			return
		}
		again := newLedger()
		if err := again.unpack(append(l.pack(), l.shadow...)); err != nil {
			t.Fatal(err)
		}
		if !maps.Equal(l.segments, again.segments) || !maps.Equal(l.compact, again.compact) || l.quotaUse != again.quotaUse || !bytes.Equal(l.shadow, again.shadow) {
			t.Errorf("%v became %v", l, again)
		}
	})
}

// FuzzSetKey: the key that was set is the key that is read, and the rest stays.
func FuzzSetKey(f *testing.F) {
	f.Add([]byte("[repository]\nversion = 1\nkey = a\n\tb\n\nid = 00\n\n"), "new\nkey")
	f.Add([]byte("[other]\nkey = x\n[repository]\nkey=\n y\nKEY: z\n"), "k")
	f.Add([]byte(""), "k")
	f.Fuzz(func(t *testing.T, data []byte, key string) {
		before, err := parseINI(bufio.NewScanner(bytes.NewReader(data)))
		strange := func(r rune) bool { return r > '~' || r < ' ' && r != '\n' && r != '\t' }
		if err != nil || len(before) == 0 || bytes.ContainsFunc(data, strange) {
			return // what Borg never writes
		}
		if strings.Trim(key, "abcdefghijklmnopqrstuvwxyz\n") != "" || strings.Contains("\n"+key+"\n", "\n\n") {
			return
		}
		after, err := parseINI(bufio.NewScanner(bytes.NewReader(setKey(data, key))))
		if err != nil || after["key"] != key {
			t.Fatalf("%q is %q, %v", key, after["key"], err)
		}
		before["key"] = key
		if !maps.Equal(before, after) {
			t.Errorf("%q became %q", before, after)
		}
	})
}
