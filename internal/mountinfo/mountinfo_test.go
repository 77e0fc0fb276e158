package mountinfo

import (
	"os"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]Mount{
		"27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n":                                                             {27, "254:0", "/", "/", "ext4", "/dev/vda", "rw"},
		`41 27 0:52 /sub\134a /mnt/a\040b\011c rw,noatime shared:1 master:2 - btrfs /dev/loop0 rw,subvol=/sub` + "\n": {41, "0:52", `/sub\a`, "/mnt/a b\tc", "btrfs", "/dev/loop0", "rw,subvol=/sub"},
		`42 27 0:53 / /mnt/\1 rw - fuse.x a\040b rw`:                                                                  {42, "0:53", "/", `/mnt/\1`, "fuse.x", "a b", "rw"},
		"43 27 0:54 / /mnt/empty rw -  none rw\n":                                                                     {43, "0:54", "/", "/mnt/empty", "", "none", "rw"},
		`22 28 0:21 /a\040b /mnt\134x\1 rw shared:1 - btrfs /dev/loop0 rw`:                                            {22, "0:21", "/a b", `/mnt\x\1`, "btrfs", "/dev/loop0", "rw"},
	} {
		if got, ok := Parse(line); !ok || got != want {
			t.Errorf("%q: %+v, %t", line, got, ok)
		}
	}
	for _, line := range []string{"", "\n", "short line\n", "1 2 3 4 5\n", " - \n", "x 1 0:1 / / rw - ext4 /dev/vda rw\n"} {
		if got, ok := Parse(line); ok {
			t.Errorf("%q is %+v", line, got)
		}
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		if _, ok := Parse(line); !ok {
			t.Errorf("this machine has %q", line)
		}
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{"/a": "/a", `/a\040b`: "/a b", `\134\011`: "\\\t", `/x\`: `/x\`, `/x\9zz`: `/x\9zz`} {
		if got := unescape(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("41 27 0:52 /sub /mnt/a\\040b rw shared:1 - btrfs /dev/loop0 rw\n")
	f.Add("1 1 0:1 \\777 \\08 rw - x \\")
	f.Add(" - \n\n")
	f.Fuzz(func(t *testing.T, line string) {
		m, ok := Parse(line)
		if ok && len(m.Device)+len(m.Root)+len(m.Dir)+len(m.Type)+len(m.Source)+len(m.Options) > len(line) {
			t.Errorf("%q became %+v", line, m)
		}
	})
}
