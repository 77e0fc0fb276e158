// Package posixacl converts POSIX access control lists between the text that
// archives hold and the bytes that the kernel keeps in the extended attributes
// system.posix_acl_access and system.posix_acl_default.
//
// The text has one entry a line (commas do as well), "tag:qualifier:rwx",
// where tag is user, group, mask or other, and the qualifier is empty for the
// file's own owner and group. BorgBackup adds a fourth field, the number of a
// named user or group, so that the name need not be known; where there is
// none, a qualifier that is a number is taken. "#" begins a comment.
//
// The bytes are a little-endian uint32 version, 2, and for each entry uint16
// tag, uint16 permissions, uint32 id (linux/posix_acl_xattr.h), in order of
// tag and id.
package posixacl

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Names of the extended attributes.
const (
	AccessXattr  = "system.posix_acl_access"
	DefaultXattr = "system.posix_acl_default"
)

const (
	version  = 2
	noID     = 1<<32 - 1
	maxCount = 8000 // more do not fit an extended attribute

	maxDigits = 20
)

const (
	tagUserObj  = 0x01
	tagUser     = 0x02
	tagGroupObj = 0x04
	tagGroup    = 0x08
	tagMask     = 0x10
	tagOther    = 0x20
)

// ErrSyntax is wrapped by all errors of this package.
var ErrSyntax = errors.New("malformed access control list")

type entry struct {
	tag, perm uint16
	id        uint32
}

// ToXattr gives the kernel's form of a list; nil for an empty one. Whatever the
// text, it allocates at most 1 MiB.
func ToXattr(text string) ([]byte, error) {
	var entries []entry
	for line := range strings.FieldsFuncSeq(text, func(r rune) bool { return r == '\n' || r == ',' }) {
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		e, err := parseEntry(line)
		if err != nil {
			return nil, fmt.Errorf("%.100q: %w", line, err)
		}
		if entries = append(entries, e); len(entries) > maxCount {
			return nil, fmt.Errorf("too many entries: %w", ErrSyntax)
		}
	}
	if len(entries) == 0 {
		return nil, nil
	}
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Or(cmp.Compare(a.tag, b.tag), cmp.Compare(a.id, b.id)) })
	b := binary.LittleEndian.AppendUint32(nil, version)
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint16(b, e.tag)
		b = binary.LittleEndian.AppendUint16(b, e.perm)
		b = binary.LittleEndian.AppendUint32(b, e.id)
	}
	return b, nil
}

// Plain tells whether a list in the kernel's form has entries for owner, group
// and others alone. As an access list it says what the mode says, and the
// kernel keeps none.
func Plain(xattr []byte) bool {
	const header, size = 4, 8
	if len(xattr) != header+3*size {
		return false
	}
	for i, tag := range []uint16{tagUserObj, tagGroupObj, tagOther} {
		if binary.LittleEndian.Uint16(xattr[header+i*size:]) != tag {
			return false
		}
	}
	return true
}

func parseEntry(line string) (e entry, err error) {
	f := strings.SplitN(line, ":", 5)
	if len(f) < 3 || len(f) > 4 {
		return e, ErrSyntax
	}
	e.id = noID
	switch f[0] {
	case "user", "u":
		e.tag = tagUserObj
	case "group", "g":
		e.tag = tagGroupObj
	case "mask", "m":
		e.tag = tagMask
	case "other", "o":
		e.tag = tagOther
	default:
		return e, ErrSyntax
	}
	if f[1] != "" || len(f) == 4 && f[3] != "" {
		if e.tag != tagUserObj && e.tag != tagGroupObj {
			return e, ErrSyntax
		}
		e.tag <<= 1 // the named one
		number := f[1]
		if len(f) == 4 && f[3] != "" {
			number = f[3]
		}
		if len(number) > maxDigits { // whose error would repeat it
			return e, ErrSyntax
		}
		id, err := strconv.ParseUint(number, 10, 32)
		if err != nil {
			return e, fmt.Errorf("no number for %.100q: %w", f[1], ErrSyntax)
		}
		e.id = uint32(id)
	}
	// Where the mask limits an entry, borg leaves the tab in that stood before
	// the comment that said so.
	for _, r := range strings.TrimSpace(f[2]) {
		switch r {
		case 'r':
			e.perm |= 4
		case 'w':
			e.perm |= 2
		case 'x':
			e.perm |= 1
		case '-':
		default:
			return e, ErrSyntax
		}
	}
	return e, nil
}

// ToText gives the text form of what the kernel keeps, with numbers as
// qualifiers; "" for nil.
func ToText(xattr []byte) (string, error) {
	return ToNamedText(xattr, func(bool, uint32) string { return "" })
}

// ToNamedText is [ToText] with names as qualifiers, where name gives one for a
// user's or a group's number.
func ToNamedText(xattr []byte, name func(group bool, id uint32) string) (string, error) {
	if len(xattr) == 0 {
		return "", nil
	}
	if len(xattr) < 4 || (len(xattr)-4)%8 != 0 || binary.LittleEndian.Uint32(xattr) != version {
		return "", ErrSyntax
	}
	var sb strings.Builder
	for b := xattr[4:]; len(b) > 0; b = b[8:] {
		tag, perm, id := binary.LittleEndian.Uint16(b), binary.LittleEndian.Uint16(b[2:]), binary.LittleEndian.Uint32(b[4:])
		kind, ok := map[uint16]string{
			tagUserObj: "user", tagUser: "user", tagGroupObj: "group", tagGroup: "group", tagMask: "mask", tagOther: "other",
		}[tag]
		if !ok || perm > 7 {
			return "", ErrSyntax
		}
		sb.WriteString(kind + ":")
		if tag == tagUser || tag == tagGroup {
			sb.WriteString(cmp.Or(name(tag == tagGroup, id), strconv.FormatUint(uint64(id), 10)))
		}
		sb.WriteByte(':')
		for i, c := range []byte("rwx") {
			if perm&(4>>i) == 0 {
				c = '-'
			}
			sb.WriteByte(c)
		}
		if tag == tagUser || tag == tagGroup {
			fmt.Fprintf(&sb, ":%d", id) // as BorgBackup does
		}
		sb.WriteByte('\n')
	}
	return sb.String(), nil
}
