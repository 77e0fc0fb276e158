package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/internal/hint"
	"github.com/s4-storage/s4/snapshot"
	"github.com/s4-storage/s4/volume"
)

func TestModeString(t *testing.T) {
	for mode, want := range map[uint32]string{
		0o100644: "-rw-r--r--", 0o40755: "drwxr-xr-x", 0o120777: "lrwxrwxrwx", 0o10600: "prw-------",
		0o20620: "crw--w----", 0o60660: "brw-rw----", 0o104755: "-rwsr-xr-x", 0o102644: "-rw-r-Sr--",
		0o41777: "drwxrwxrwt", 0o41776: "drwxrwxrwT",
	} {
		if got := modeString(mode); got != want {
			t.Errorf("%o: %s, want %s", mode, got, want)
		}
	}
}

func TestProgressLine(t *testing.T) {
	for _, c := range []struct {
		p    volume.Progress
		want string
	}{
		{volume.Progress{Verb: "pushing", Files: 1204, Bytes: 50e6, TotalBytes: 100e6, Path: "a\nb"},
			`pushing [##########----------]  50%  1,204 files  50 MB  25 MB/s  'a'$'\n''b'`},
		{volume.Progress{Verb: "indexing 1/3", Files: 5}, "indexing 1/3  5 files"},
		{volume.Progress{Verb: "pushing", Files: 3, TotalFiles: 2}, "pushing [####################] 100%  3 files"},
	} {
		if got := progressLine(c.p, 2*time.Second); got != c.want {
			t.Errorf("got  %q\nwant %q", got, c.want)
		}
	}
}

// What a file is called commands no terminal, wherever its name is said.
func TestMessagesDoNothingToATerminal(t *testing.T) {
	var out strings.Builder
	odd := "a\x1b[2Jb\xff"
	printError(&out, hint.With(fmt.Errorf("no such file: %s", odd), "try "+odd))
	a := &app{Globals: &Globals{}, stderr: &out}
	a.warn("unreadable: %s", odd)
	a.say("restored %s", odd)
	want := `s4: no such file: a\033[2Jb\377
hint: try a\033[2Jb\377
s4: warning: unreadable: a\033[2Jb\377
restored a\033[2Jb\377
`
	if out.String() != want {
		t.Errorf("got  %q\nwant %q", out.String(), want)
	}
}

func TestExitCodes(t *testing.T) {
	for want, errs := range map[int][]error{
		exitFailed:      {errors.New("x"), fs.ErrPermission},
		exitUsage:       {fmt.Errorf("a: %w", snapshot.ErrUsage)},
		exitNotFound:    {fmt.Errorf("a: %w", fs.ErrNotExist), borgio.ErrNotRepository},
		exitRefused:     {fmt.Errorf("%w: %w", fs.ErrNotExist, snapshot.ErrRefused)},
		exitUnreachable: {borgio.ErrUnreachable, borgio.ErrNoBorg, borgio.ErrHostKey, snapshot.ErrUnreachable},
		exitLocked:      {borgio.ErrLocked, snapshot.ErrLocked},
		exitDamaged:     {borgio.ErrIntegrity, snapshot.ErrDamaged},
		exitKey:         {borgio.ErrPassphrase, borgio.ErrNoPassphrase, borgio.ErrKeyMissing, borgio.ErrKeyMismatch, borgio.ErrKeyDamaged, borgio.ErrKeyKind},
	} {
		for _, err := range errs {
			if got := exitCode(err); got != want {
				t.Errorf("%v: %d, want %d", err, got, want)
			}
		}
	}
}
