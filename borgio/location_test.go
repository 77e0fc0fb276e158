package borgio

import (
	"path/filepath"
	"testing"
)

func TestParseLocation(t *testing.T) {
	here, _ := filepath.Abs("rel/repo")
	for _, c := range []struct {
		in   string
		want Location
		str  string
	}{
		{"user@host:/srv/repo", Location{User: "user", Host: "host", Path: "/srv/repo"}, "ssh://user@host/srv/repo"},
		{"host:repo", Location{Host: "host", Path: "repo"}, "host:repo"},
		{"host:/r::a1", Location{Host: "host", Path: "/r", Archive: "a1"}, "ssh://host/r"},
		{"ssh://u@h:2222/~/r::x:y", Location{User: "u", Host: "h", Port: 2222, Path: "/~/r", Archive: "x:y"}, "ssh://u@h:2222/~/r"},
		{"ssh://h/./r", Location{Host: "h", Path: "/./r"}, "ssh://h/./r"},
		{"ssh://[::1]:22/r", Location{Host: "::1", Port: 22, Path: "/r"}, "ssh://[::1]:22/r"},
		{"ssh://u@[fe80::1]/r::a", Location{User: "u", Host: "fe80::1", Path: "/r", Archive: "a"}, "ssh://u@[fe80::1]/r"},
		{"[::1]:/r", Location{Host: "::1", Path: "/r"}, "ssh://[::1]/r"},
		{"/srv/repo::2020-01-01T00:00", Location{Path: "/srv/repo", Archive: "2020-01-01T00:00"}, "/srv/repo"},
		{"/srv/re:po", Location{Path: "/srv/re:po"}, "/srv/re:po"},
		{"rel/repo", Location{Path: here}, here},
		{"rel/repo::a", Location{Path: here, Archive: "a"}, here},
		{"file:///srv/r::a", Location{Path: "/srv/r", Archive: "a"}, "/srv/r"},
	} {
		got, err := ParseLocation(c.in)
		if err != nil || got != c.want {
			t.Errorf("%s: got %+v, %v", c.in, got, err)
		}
		if s := got.String(); s != c.str {
			t.Errorf("%s: String %q, want %q", c.in, s, c.str)
		}
		again, err := ParseLocation(got.String())
		again.Archive = got.Archive
		if err != nil || again != got {
			t.Errorf("%s: read back as %+v, %v", c.in, again, err)
		}
	}
	for _, in := range []string{"", "ssh://host", "ssh://h:0/r", "ssh://h:x/r", "ssh:///r", "http://h/r", "file://rel", "/r::", "/r::a/b", "-oProxyCommand=x:/r", "ssh://-x/r", "host:", "a\nb"} {
		if l, err := ParseLocation(in); err == nil {
			t.Errorf("%q: accepted as %+v", in, l)
		}
	}
}
