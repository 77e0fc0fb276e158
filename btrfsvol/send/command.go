package send

import (
	"fmt"
	"time"

	"github.com/google/uuid"
)

// Kind is what a command does; the numbers are the stream's.
type Kind uint16

// The commands of versions 1, 2 (from Fallocate) and 3 (EnableVerity). Behind
// each stand the fields of [Command] that it sets besides Path.
const (
	Subvol       Kind = 1 + iota // UUID, CTransid: the stream makes a whole subvolume
	Snapshot                     // UUID, CTransid, CloneUUID, CloneCTransid: it changes the parent's copy
	MkFile                       // Ino
	MkDir                        // Ino
	MkNod                        // Ino, Mode, Rdev
	MkFifo                       // Ino, Mode, Rdev
	MkSock                       // Ino, Mode, Rdev
	Symlink                      // Ino, Link: what it points to
	Rename                       // To
	Link                         // Link: the existing path
	Unlink                       //
	Rmdir                        //
	SetXattr                     // Xattr, Data
	RemoveXattr                  // Xattr
	Write                        // Offset, Data
	Clone                        // Offset, Size, CloneUUID, CloneCTransid, ClonePath, CloneOffset
	Truncate                     // Size
	Chmod                        // Mode
	Chown                        // UID, GID
	Utimes                       // ATime, MTime, CTime
	End                          // no Path either; [Reader.Next] says io.EOF instead
	UpdateExtent                 // Offset, Size: stands for Write where data is left out
	Fallocate                    // FallocateMode, Offset, Size
	FileAttr                     // Attr
	EncodedWrite                 // Offset, Data, UnencodedFileLen, UnencodedLen, UnencodedOffset, Compression, Encryption
	EnableVerity                 // VerityAlgorithm, VerityBlockSize, VeritySalt, VeritySignature
)

var kindNames = [...]string{
	"", "subvol", "snapshot", "mkfile", "mkdir", "mknod", "mkfifo", "mksock", "symlink", "rename", "link", "unlink", "rmdir",
	"set_xattr", "remove_xattr", "write", "clone", "truncate", "chmod", "chown", "utimes", "end", "update_extent",
	"fallocate", "fileattr", "encoded_write", "enable_verity",
}

func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("command %d", uint16(k))
}

// Command is one command of a stream. Paths are relative to the subvolume, ""
// being its root, and as they are when the command's turn comes. Offsets, sizes
// and lengths are bytes.
type Command struct {
	Kind Kind
	Path string
	To   string
	Link string

	Ino      uint64
	Mode     uint32 // as in stat(2): Chmod has the permissions alone, or with the type
	Rdev     uint64 // as the kernel's 64-bit device number
	UID, GID uint64

	ATime, MTime, CTime, OTime time.Time // OTime, the time of birth, from version 2

	Xattr  string
	Data   []byte // valid until the next command
	Offset uint64
	Size   uint64

	UUID          uuid.UUID
	CTransid      uint64
	CloneUUID     uuid.UUID // the subvolume that ClonePath lies in
	CloneCTransid uint64
	ClonePath     string
	CloneOffset   uint64

	FallocateMode    uint32 // as in fallocate(2)
	Attr             uint64 // BTRFS_INODE_* flags
	UnencodedFileLen uint64
	UnencodedLen     uint64
	UnencodedOffset  uint64
	Compression      uint32 // BTRFS_ENCODED_IO_COMPRESSION_*
	Encryption       uint32

	VerityAlgorithm uint8
	VerityBlockSize uint32
	VeritySalt      []byte // valid until the next command
	VeritySignature []byte // valid until the next command
}

// attr is an attribute's number.
type attr uint16

const (
	aUUID attr = 1 + iota
	aCTransid
	aIno
	aSize
	aMode
	aUID
	aGID
	aRdev
	aCTime
	aMTime
	aATime
	aOTime
	aXattrName
	aXattrData
	aPath
	aPathTo
	aPathLink
	aFileOffset
	aData
	aCloneUUID
	aCloneCTransid
	aClonePath
	aCloneOffset
	aCloneLen
	aFallocateMode
	aFileAttr
	aUnencodedFileLen
	aUnencodedLen
	aUnencodedOffset
	aCompression
	aEncryption
	aVerityAlgorithm
	aVerityBlockSize
	aVeritySalt
	aVeritySignature
	aEnd
)

// set is a set of attributes.
type set uint64

func setOf(attrs ...attr) set {
	var s set
	for _, a := range attrs {
		s |= 1 << a
	}
	return s
}

// version is the first version of the stream that has the command.
func (k Kind) version() uint32 {
	switch {
	case k <= UpdateExtent:
		return 1
	case k <= EncodedWrite:
		return 2
	}
	return 3
}

// required are the attributes that a command must have. It may have others.
func (k Kind) required() set {
	switch k {
	case Subvol:
		return setOf(aPath, aUUID, aCTransid)
	case Snapshot:
		return setOf(aPath, aUUID, aCTransid, aCloneUUID, aCloneCTransid)
	case MkFile, MkDir:
		return setOf(aPath)
	case MkNod, MkFifo, MkSock:
		return setOf(aPath, aMode, aRdev)
	case Symlink, Link:
		return setOf(aPath, aPathLink)
	case Rename:
		return setOf(aPath, aPathTo)
	case Unlink, Rmdir:
		return setOf(aPath)
	case SetXattr:
		return setOf(aPath, aXattrName, aXattrData)
	case RemoveXattr:
		return setOf(aPath, aXattrName)
	case Write:
		return setOf(aPath, aFileOffset, aData)
	case Clone:
		return setOf(aPath, aFileOffset, aCloneLen, aCloneUUID, aCloneCTransid, aClonePath, aCloneOffset)
	case Truncate:
		return setOf(aPath, aSize)
	case Chmod:
		return setOf(aPath, aMode)
	case Chown:
		return setOf(aPath, aUID, aGID)
	case Utimes:
		return setOf(aPath, aATime, aMTime, aCTime)
	case UpdateExtent:
		return setOf(aPath, aFileOffset, aSize)
	case Fallocate:
		return setOf(aPath, aFallocateMode, aFileOffset, aSize)
	case FileAttr:
		return setOf(aPath, aFileAttr)
	case EncodedWrite:
		return setOf(aPath, aFileOffset, aData, aUnencodedFileLen, aUnencodedLen, aUnencodedOffset)
	case EnableVerity:
		return setOf(aPath, aVerityAlgorithm, aVerityBlockSize, aVeritySalt, aVeritySignature)
	}
	return 0
}
