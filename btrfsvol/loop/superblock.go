package loop

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
	"golang.org/x/crypto/blake2b"
)

// Superblock is what btrfs says of itself. The format is `struct
// btrfs_super_block` in the kernel's include/uapi/linux/btrfs_tree.h, and is
// described in btrfs's documentation under "On-disk Format". All numbers are
// little-endian.
type Superblock struct {
	UUID       string // of the file system, in lower case with dashes
	Label      string
	TotalBytes int64 // size of the file system
	BytesUsed  int64 // by data and metadata, each copy counted once
	Devices    uint64
	Generation uint64
}

// Where things are.
const (
	superOffset = 64 << 10 // the first copy; mkfs.btrfs and the kernel go by it
	superSize   = 4096

	offChecksum   = 0x00 // over everything behind it, in up to 32 bytes
	offUUID       = 0x20
	offAddress    = 0x30 // of this copy
	offMagic      = 0x40
	offGeneration = 0x48
	offTotal      = 0x70
	offUsed       = 0x78
	offDevices    = 0x88
	offKind       = 0xc4 // of checksum
	offLabel      = 0x12b
	labelSize     = 256 // with the NUL at its end
)

var superMagic = []byte("_BHRfS_M")

// ReadSuperblock reads the superblock of a file system that begins where r
// does. Errors: [ErrNotBtrfs], [ErrDamaged] and r's own.
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	buf := make([]byte, superSize)
	for try := 0; ; try++ {
		_, err := r.ReadAt(buf, superOffset)
		if errors.Is(err, io.EOF) {
			return Superblock{}, fmt.Errorf("%w: too short", ErrNotBtrfs)
		}
		if err != nil {
			return Superblock{}, err
		}
		s, err := ParseSuperblock(buf)
		// While the file system is mounted, a read may meet half a write.
		if err == nil || try == 2 || !errors.Is(err, ErrDamaged) {
			return s, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// ParseSuperblock parses the 4 KiB that [ReadSuperblock] reads.
func ParseSuperblock(b []byte) (Superblock, error) {
	if len(b) < superSize || !bytes.Equal(b[offMagic:offMagic+len(superMagic)], superMagic) {
		return Superblock{}, ErrNotBtrfs
	}
	b = b[:superSize]
	u64 := func(off int) uint64 { return binary.LittleEndian.Uint64(b[off:]) }
	sum, err := checksum(binary.LittleEndian.Uint16(b[offKind:]), b[offUUID:])
	if err != nil {
		return Superblock{}, err
	}
	if !bytes.HasPrefix(b[offChecksum:], sum) {
		return Superblock{}, fmt.Errorf("%w: wrong checksum", ErrDamaged)
	}
	if u64(offAddress) != superOffset || u64(offTotal) > math.MaxInt64 || u64(offUsed) > math.MaxInt64 {
		return Superblock{}, fmt.Errorf("%w: impossible numbers", ErrDamaged)
	}
	label, _, _ := bytes.Cut(b[offLabel:offLabel+labelSize], []byte{0})
	return Superblock{
		UUID:       uuid.UUID(b[offUUID : offUUID+16]).String(),
		Label:      string(label),
		TotalBytes: int64(u64(offTotal)),
		BytesUsed:  int64(u64(offUsed)),
		Devices:    u64(offDevices),
		Generation: u64(offGeneration),
	}, nil
}

// checksum computes a checksum of one of the kinds that btrfs has.
func checksum(kind uint16, b []byte) ([]byte, error) {
	switch kind {
	case 0:
		return binary.LittleEndian.AppendUint32(nil, crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli))), nil
	case 1:
		return binary.LittleEndian.AppendUint64(nil, xxhash.Sum64(b)), nil
	case 2:
		sum := sha256.Sum256(b)
		return sum[:], nil
	case 3:
		sum := blake2b.Sum256(b)
		return sum[:], nil
	}
	return nil, fmt.Errorf("%w: unknown kind of checksum %d", ErrDamaged, kind)
}
