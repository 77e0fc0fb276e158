package loop

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
)

// Real ones, with each checksum that mkfs.btrfs knows.
func TestSuperblock(t *testing.T) {
	mkfs := tool(t, "mkfs.btrfs")
	for _, sum := range []string{"crc32c", "xxhash", "sha256", "blake2"} {
		t.Run(sum, func(t *testing.T) {
			path, id := filepath.Join(t.TempDir(), "image"), uuid.NewString()
			must(t, os.WriteFile(path, nil, 0o600))
			must(t, os.Truncate(path, 128*mib))
			run(t, mkfs, "--quiet", "--csum", sum, "--label", "étiquette", "--uuid", id, path)
			f, err := os.Open(path)
			must(t, err)
			defer f.Close()
			s, err := ReadSuperblock(f)
			must(t, err)
			if s.UUID != id || s.Label != "étiquette" || s.TotalBytes != 128*mib || s.Devices != 1 || s.BytesUsed == 0 || s.BytesUsed > mib {
				t.Errorf("%+v", s)
			}
			block := make([]byte, superSize)
			_, err = f.ReadAt(block, superOffset)
			must(t, err)
			for i := range block {
				if 4 <= i && i < offUUID { // the longest checksums end where the UUID begins
					continue
				}
				block[i] ^= 0x10
				if _, err := ParseSuperblock(block); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBtrfs) {
					t.Fatalf("byte %d was changed: %v", i, err)
				}
				block[i] ^= 0x10
			}
		})
	}
}

func TestNoSuperblock(t *testing.T) {
	for name, c := range map[string]struct {
		content []byte
		want    error
	}{
		"nothing":    {nil, ErrNotBtrfs},
		"short":      {make([]byte, superOffset+superSize-1), ErrNotBtrfs},
		"zeros":      {make([]byte, superOffset+superSize), ErrNotBtrfs},
		"second one": {append(make([]byte, superOffset), seal(0, 64<<20, 1)...), ErrDamaged},
		"too large":  {append(make([]byte, superOffset), seal(0, superOffset, math.MaxUint64)...), ErrDamaged},
		"new kind":   {append(make([]byte, superOffset), seal(9, superOffset, 1)...), ErrDamaged},
	} {
		if s, err := ReadSuperblock(bytes.NewReader(c.content)); !errors.Is(err, c.want) {
			t.Errorf("%s: %+v, %v", name, s, err)
		}
	}
}

// seal makes a superblock with a valid checksum.
func seal(kind uint16, address, total uint64) []byte {
	b := make([]byte, superSize)
	copy(b[offMagic:], superMagic)
	binary.LittleEndian.PutUint64(b[offAddress:], address)
	binary.LittleEndian.PutUint64(b[offTotal:], total)
	binary.LittleEndian.PutUint16(b[offKind:], kind)
	copy(b[offLabel:], strings.Repeat("x", labelSize))
	if sum, err := checksum(kind, b[offUUID:]); err == nil {
		copy(b, sum)
	}
	return b
}

func FuzzParseSuperblock(f *testing.F) {
	for kind := range uint16(5) {
		f.Add(seal(kind, superOffset, gib), false)
	}
	f.Add([]byte(nil), true)
	f.Add(seal(0, 0, math.MaxUint64), true)
	f.Fuzz(func(t *testing.T, b []byte, fix bool) {
		// Else hardly an input comes past the checksum.
		if fix && len(b) >= superSize {
			if sum, err := checksum(binary.LittleEndian.Uint16(b[offKind:]), b[offUUID:superSize]); err == nil {
				copy(b, sum)
			}
		}
		s, err := ParseSuperblock(b)
		if err != nil {
			if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotBtrfs) {
				t.Error(err)
			}
			return
		}
		if s.TotalBytes < 0 || s.BytesUsed < 0 || len(s.Label) > labelSize || len(s.UUID) != 36 || strings.Contains(s.Label, "\x00") {
			t.Errorf("%+v", s)
		}
	})
}
