package dockeragent

import (
	"strings"
	"testing"
	"time"
)

// FuzzState: a status that another process wrote is refused or can be shown.
func FuzzState(f *testing.F) {
	f.Add([]byte(`{"project":"p","volumes":{"v":{"remote":"/r","interval":3600000000000,"last_good":"2026-11-25T22:00:00Z"}},"held":[{"id":"x","since":"2026-11-25T22:00:00Z"}]}`))
	f.Add([]byte(`{"volumes":{"v":null}}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := parseState(in)
		if err != nil {
			return
		}
		status := Status{State: s}
		_ = status.Complaints(0, time.Unix(1_000_000, 0))
		for _, name := range s.Names() {
			if s.Volumes[name] == nil {
				t.Errorf("%q has no state", name)
			}
		}
	})
}

func FuzzSelf(f *testing.F) {
	f.Add("717 700 8:1 /var/lib/docker/containers/" + strings.Repeat("0f", 32) + "/hostname /etc/hostname rw - ext4 /dev/sda1 rw\n")
	f.Fuzz(func(t *testing.T, in string) {
		if id := selfIn(in); id != "" && (len(id) != 64 || strings.Trim(id, "0123456789abcdef") != "") {
			t.Errorf("id %q", id)
		}
	})
}
