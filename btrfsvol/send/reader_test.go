package send

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// streams are those of testdata, made by make.sh there.
func streams(tb testing.TB) map[string][]byte {
	tb.Helper()
	m := map[string][]byte{}
	for _, name := range []string{"full-v1", "change-v1", "change-v1-nodata", "change-v2", "full-v2-compressed"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			tb.Fatal(err)
		}
		m[name] = data
	}
	return m
}

// readStream reads a stream to its end and gives copies of its commands.
func readStream(r io.Reader) ([]Command, error) {
	stream := NewReader(r)
	var all []Command
	for {
		c, err := stream.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		copied := *c
		copied.Data = bytes.Clone(c.Data)
		all = append(all, copied)
	}
}

// short is a command as a line.
func short(c Command) string {
	s := fmt.Sprintf("%v %s", c.Kind, c.Path)
	switch c.Kind {
	case MkFile, MkDir:
		s += fmt.Sprint(" ino ", c.Ino)
	case MkNod:
		s += fmt.Sprintf(" ino %d mode %o rdev %#x", c.Ino, c.Mode, c.Rdev)
	case Symlink, Link:
		s += " = " + c.Link
	case Rename:
		s += " to " + c.To
	case SetXattr, RemoveXattr:
		s += " " + c.Xattr + "=" + string(c.Data)
	case Write:
		s += fmt.Sprintf(" at %d %d bytes %.5q", c.Offset, len(c.Data), c.Data)
	case EncodedWrite:
		s += fmt.Sprintf(" at %d %d bytes for %d, compression %d", c.Offset, len(c.Data), c.UnencodedFileLen, c.Compression)
	case UpdateExtent:
		s += fmt.Sprintf(" at %d %d bytes", c.Offset, c.Size)
	case Clone:
		s += fmt.Sprintf(" at %d %d bytes from %s at %d", c.Offset, c.Size, c.ClonePath, c.CloneOffset)
	case Truncate:
		s += fmt.Sprint(" to ", c.Size)
	case Chmod:
		s += fmt.Sprintf(" %o", c.Mode)
	case Chown:
		s += fmt.Sprintf(" %d:%d", c.UID, c.GID)
	}
	return s
}

func TestRead(t *testing.T) {
	want := `snapshot two
rename dir to moved
rmdir gone
unlink hard
remove_xattr moved/file user.name=
set_xattr moved/file user.other=x
write moved/file at 0 10 bytes "text\n"
utimes moved/file
unlink fifo
write long at 0 1000 bytes "1\n2\n3"
truncate long to 1000
utimes long
mkfile o265-8-0 ino 265
rename o265-8-0 to clone
write clone at 0 1892 bytes "1\n2\n3"
chown clone 5:6
chmod clone 600
utimes clone
mkfile o266-8-0 ino 266
rename o266-8-0 to new
write new at 0 1892 bytes "1\n2\n3"
chown new 0:0
chmod new 644
utimes new
utimes 
utimes moved
`
	all := streams(t)
	for name, want := range map[string]string{
		"change-v1": want,
		"change-v2": want,
		"change-v1-nodata": strings.NewReplacer(`write`, `update_extent`, ` "text\n"`, ``, ` "1\n2\n3"`, ``).
			Replace(want),
	} {
		// One byte at a time: where reads end must not matter.
		got, err := readStream(iotest.OneByteReader(bytes.NewReader(all[name])))
		if err != nil {
			t.Error(err)
		}
		var lines strings.Builder
		for _, c := range got {
			lines.WriteString(short(c) + "\n")
		}
		if lines.String() != want {
			t.Errorf("%s:\n%s", name, lines.String())
		}
	}
	full, err := readStream(bytes.NewReader(all["full-v2-compressed"]))
	if err != nil {
		t.Fatal(err)
	}
	var lines strings.Builder
	for _, c := range full {
		lines.WriteString(short(c) + "\n")
		if c.Kind == Utimes && (c.MTime.Year() < 2020 || c.CTime.Before(c.MTime)) {
			t.Errorf("%+v", c)
		}
	}
	for _, want := range []string{
		"encoded_write long at 0 861 bytes for 1892, compression 2", "mknod o262-7-0 ino 262 mode 20644 rdev 0x103",
		"symlink o260-7-0 = dir/file", "link dir/file = hard", "mkfifo o261-7-0", "mksock o263-7-0", "mkdir o258-7-0 ino 258",
	} {
		if !strings.Contains(lines.String(), want+"\n") {
			t.Errorf("no %q in:\n%s", want, lines.String())
		}
	}
	if c := full[0]; c.Kind != Subvol || c.Path != "one" || c.UUID.String() == "" || c.CTransid != 7 {
		t.Errorf("%+v", c)
	}
}

// TestDump compares with what btrfs-progs reads.
func TestDump(t *testing.T) {
	btrfs, err := exec.LookPath("btrfs")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	for name, data := range streams(t) {
		cmd := exec.CommandContext(t.Context(), btrfs, "receive", "--dump")
		cmd.Stdin = bytes.NewReader(data)
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		all, err := readStream(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		if len(lines) != len(all) {
			t.Fatalf("%s: %d commands, btrfs has %d", name, len(all), len(lines))
		}
		subvolume := all[0].Path
		for i, c := range all {
			f := strings.Fields(lines[i])
			path := "./" + subvolume + "/" + c.Path
			if i == 0 {
				path = "./" + subvolume
			}
			if f[0] != c.Kind.String() || f[1] != path {
				t.Errorf("%s: %s, btrfs has %s", name, short(c), lines[i])
			}
		}
	}
}

// builder makes streams by hand.
type builder struct{ bytes.Buffer }

func newBuilder(version uint32) *builder {
	b := &builder{}
	b.WriteString(magic)
	_ = binary.Write(b, binary.LittleEndian, version)
	return b
}

type field struct {
	a     attr
	value any
}

func (b *builder) command(kind Kind, fields ...field) *builder {
	body := &bytes.Buffer{}
	for _, f := range fields {
		v := &bytes.Buffer{}
		if s, ok := f.value.(string); ok {
			v.WriteString(s)
		} else {
			_ = binary.Write(v, binary.LittleEndian, f.value)
		}
		_ = binary.Write(body, binary.LittleEndian, []uint16{uint16(f.a), uint16(v.Len())})
		body.Write(v.Bytes())
	}
	head := make([]byte, headerLen)
	binary.LittleEndian.PutUint32(head, uint32(body.Len()))
	binary.LittleEndian.PutUint16(head[4:], uint16(kind))
	sum := checksum(append(bytes.Clone(head), body.Bytes()...))
	binary.LittleEndian.PutUint32(head[6:], sum)
	b.Write(head)
	b.Write(body.Bytes())
	return b
}

// The commands that no kernel sends today.
func TestOtherCommands(t *testing.T) {
	b := newBuilder(3).
		command(Fallocate, field{aPath, "f"}, field{aFallocateMode, uint32(3)}, field{aFileOffset, uint64(4096)}, field{aSize, uint64(8192)}).
		command(FileAttr, field{aPath, "f"}, field{aFileAttr, uint64(0x10)}).
		command(EnableVerity, field{aPath, "f"}, field{aVerityAlgorithm, uint8(1)}, field{aVerityBlockSize, uint32(4096)}, field{aVeritySalt, "salt"}, field{aVeritySignature, ""}).
		command(End)
	all, err := readStream(b)
	if err != nil || len(all) != 3 {
		t.Fatal(all, err)
	}
	if c := all[0]; c.FallocateMode != 3 || c.Offset != 4096 || c.Size != 8192 {
		t.Errorf("%+v", c)
	}
	if c := all[1]; c.Attr != 0x10 {
		t.Errorf("%+v", c)
	}
	if c := all[2]; c.VerityAlgorithm != 1 || c.VerityBlockSize != 4096 || len(c.VeritySignature) != 0 {
		t.Errorf("%+v", c)
	}
}

func TestHostile(t *testing.T) {
	path := func(p string) *builder { return newBuilder(1).command(Unlink, field{aPath, p}).command(End) }
	long := newBuilder(1)
	long.Write([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0})
	for name, c := range map[string]struct {
		stream *builder
		want   string
	}{
		"nothing":           {&builder{}, "unexpected EOF"},
		"something else":    {&builder{*bytes.NewBufferString("#!/bin/sh\n")}, "not a btrfs stream"},
		"version 0":         {newBuilder(0), "version 0 is unknown"},
		"version 4":         {newBuilder(4), "version 4 is unknown"},
		"no end":            {newBuilder(1), "unexpected EOF"},
		"long":              {long, "a command of 4294967295 bytes"},
		"up":                {path("a/../b"), "unsafe path"},
		"absolute":          {path("/a"), "unsafe path"},
		"twice a slash":     {path("a//b"), "unsafe path"},
		"zero byte":         {path("a\x00"), "a zero byte"},
		"no path":           {newBuilder(1).command(Unlink), "missing"},
		"twice a path":      {newBuilder(1).command(Unlink, field{aPath, "a"}, field{aPath, "b"}), "twice"},
		"unknown attribute": {newBuilder(1).command(Unlink, field{aPath, "a"}, field{aEnd, "b"}), "unknown attribute"},
		"short number":      {newBuilder(1).command(Truncate, field{aPath, "a"}, field{aSize, uint32(1)}), "4 bytes instead of 8"},
		"unknown command":   {newBuilder(3).command(EnableVerity + 1), "not a command of version 3"},
		"later command":     {newBuilder(1).command(FileAttr, field{aPath, "a"}, field{aFileAttr, uint64(1)}), "not a command of version 1"},
		"link outside":      {newBuilder(1).command(Link, field{aPath, "a"}, field{aPathLink, "../b"}), "unsafe path"},
	} {
		_, err := readStream(c.stream)
		var format *FormatError
		if !errors.Is(err, ErrFormat) || !errors.As(err, &format) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	broken := errors.New("broken pipe")
	if _, err := readStream(iotest.ErrReader(broken)); !errors.Is(err, broken) || errors.Is(err, ErrFormat) {
		t.Errorf("error of the reader: %v", err)
	}
}

// A stream that was cut or changed anywhere is found to be so.
func TestDamage(t *testing.T) {
	for name, data := range streams(t) {
		for n := rand.IntN(5); n < len(data); n += 5 {
			if _, err := readStream(bytes.NewReader(data[:n])); !errors.Is(err, ErrFormat) || !errors.Is(err, io.ErrUnexpectedEOF) {
				t.Fatalf("%s: cut at %d: %v", name, n, err)
			}
		}
		for i := rand.IntN(5); i < len(data); i += 5 {
			if i >= len(magic) && i < len(magic)+4 {
				continue // the version has no checksum
			}
			damaged := bytes.Clone(data)
			damaged[i] ^= 1 << rand.IntN(8)
			if _, err := readStream(bytes.NewReader(damaged)); !errors.Is(err, ErrFormat) {
				t.Fatalf("%s: byte %d changed: %v", name, i, err)
			}
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, data := range streams(f) {
		f.Add(data)
	}
	f.Add(newBuilder(3).command(FileAttr, field{aPath, "a"}, field{aFileAttr, uint64(1)}).command(End).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		mend(data)
		all, err := readStream(bytes.NewReader(data))
		if err != nil && !errors.Is(err, ErrFormat) {
			t.Error(err)
		}
		total := 0
		for _, c := range all {
			total += len(c.Path) + len(c.To) + len(c.Data)
			for _, p := range []string{c.Path, c.To, c.ClonePath} {
				if p != "" && !filepath.IsLocal(p) {
					t.Errorf("unsafe path %q", p)
				}
			}
		}
		if total > len(data) {
			t.Errorf("%d bytes out of %d", total, len(data))
		}
	})
}

// mend gives all commands the checksums that they should have.
func mend(data []byte) {
	for p := data[min(len(data), len(magic)+4):]; len(p) >= headerLen; {
		n := int(binary.LittleEndian.Uint32(p)) + headerLen
		if n > len(p) {
			return
		}
		copy(p[6:], "\x00\x00\x00\x00")
		binary.LittleEndian.PutUint32(p[6:], checksum(p[:n]))
		p = p[n:]
	}
}
