package diff

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/s4-storage/s4/snapshot"
)

// Reader gives the content of one side's regular files.
type Reader func(ctx context.Context, path string, e *snapshot.Entry) (snapshot.File, error)

// MaxText is the size in bytes up to which a file's text is compared.
const MaxText = 8 << 20

// binaryHead is how much of a file is looked at for a NUL, which no text has.
const binaryHead = 8000

// Patch writes changes as git does: what it writes, git apply and patch
// understand, but for binary files, of which it tells the sizes alone.
type Patch struct {
	W        io.Writer
	Old, New Reader
	// Show makes a line of a file, with its end, fit for W; nil leaves it.
	Show func([]byte) []byte
}

// Covers tells whether a patch can say all there is to say of c.
func (p *Patch) Covers(c *Change) bool {
	const hidden = Owner | Attributes | Links
	return c.What&hidden == 0 && p.writes(c) && (c.What&Mode == 0 || gitMode(c.Old) != gitMode(c.New))
}

// writes tells whether there is anything about c that git would know.
func (p *Patch) writes(c *Change) bool {
	const told = Added | Removed | Renamed | Kind | Content | Unsure
	return patchable(c.Old) && patchable(c.New) && (c.What&told != 0 || c.What&Mode != 0 && gitMode(c.Old) != gitMode(c.New))
}

func patchable(e *snapshot.Entry) bool { return e == nil || isRegular(e.Mode) || isLink(e.Mode) }

// Write writes what git would know of a change. When content
// cannot be read, only the head is written.
func (p *Patch) Write(ctx context.Context, c *Change) error {
	if !p.writes(c) {
		return nil
	}
	if c.What&Kind != 0 || c.What&Content != 0 && isLink(c.New.Mode) { // git deletes the one and adds the other
		gone := Change{Path: c.Path, Old: c.Old, What: Removed}
		if err := p.Write(ctx, &gone); err != nil {
			return err
		}
		return p.Write(ctx, &Change{Path: c.Path, New: c.New, What: Added})
	}
	from := c.Path
	if c.From != "" {
		from = c.From
	}
	var head strings.Builder
	fmt.Fprintf(&head, "diff --git %s %s\n", gitName("a/"+from), gitName("b/"+c.Path))
	oldName, newName := gitName("a/"+from), gitName("b/"+c.Path)
	switch {
	case c.Old == nil:
		fmt.Fprintf(&head, "new file mode %o\n", gitMode(c.New))
		oldName = "/dev/null"
	case c.New == nil:
		fmt.Fprintf(&head, "deleted file mode %o\n", gitMode(c.Old))
		newName = "/dev/null"
	case gitMode(c.Old) != gitMode(c.New):
		fmt.Fprintf(&head, "old mode %o\nnew mode %o\n", gitMode(c.Old), gitMode(c.New))
	}
	if c.What&Renamed != 0 {
		fmt.Fprintf(&head, "similarity index 100%%\nrename from %s\nrename to %s\n", gitName(from), gitName(c.Path))
	}
	if c.What&(Added|Removed|Content|Unsure) == 0 {
		_, err := io.WriteString(p.W, head.String())
		return err
	}
	body, err := p.body(ctx, c, from, oldName, newName)
	if err == nil && body == "" && c.What&Unsure != 0 {
		return nil // it was touched, and is the same
	}
	if _, errWrite := io.WriteString(p.W, head.String()+body); errWrite != nil {
		return errWrite
	}
	return err
}

// body is what comes after the head of a file whose content differs.
func (p *Patch) body(ctx context.Context, c *Change, from, oldName, newName string) (string, error) {
	if size(c.Old) > MaxText || size(c.New) > MaxText {
		return fmt.Sprintf("Files %s and %s differ (%d and %d bytes, too large to compare here)\n", oldName, newName, size(c.Old), size(c.New)), nil
	}
	old, binary, err := text(ctx, p.Old, from, c.Old)
	if err != nil {
		return "", err
	}
	now, binaryToo, err := text(ctx, p.New, c.Path, c.New)
	if err != nil {
		return "", err
	}
	if binary || binaryToo {
		return fmt.Sprintf("Binary files %s and %s differ (%d and %d bytes)\n", oldName, newName, size(c.Old), size(c.New)), nil
	}
	if bytes.Equal(old, now) {
		return "", nil
	}
	show := p.Show
	if show == nil {
		show = func(line []byte) []byte { return line }
	}
	var b strings.Builder
	fmt.Fprintf(&b, "--- %s\n+++ %s\n", tabbed(oldName), tabbed(newName))
	err = unified(&b, old, now, show)
	return b.String(), err
}

// text reads a file whole unless its beginning shows that it is no text.
func text(ctx context.Context, open Reader, path string, e *snapshot.Entry) (_ []byte, binary bool, err error) {
	switch {
	case e == nil || isRegular(e.Mode) && e.Size == 0:
		return nil, false, nil
	case isLink(e.Mode):
		return []byte(e.Target), false, nil
	}
	f, err := open(ctx, path, e)
	if err != nil {
		return nil, false, err
	}
	defer f.Close()
	if f.Size() > MaxText {
		return nil, true, nil // it has grown since it was listed
	}
	buf := make([]byte, f.Size())
	head := buf[:min(len(buf), binaryHead)]
	if err := readAll(ctx, f, head, 0); err != nil {
		return nil, false, fmt.Errorf("read %q: %w", path, err)
	}
	if bytes.IndexByte(head, 0) >= 0 {
		return nil, true, nil
	}
	if err := readAll(ctx, f, buf[len(head):], int64(len(head))); err != nil {
		return nil, false, fmt.Errorf("read %q: %w", path, err)
	}
	return buf, false, nil
}

func readAll(ctx context.Context, f snapshot.File, p []byte, off int64) error {
	n, err := f.ReadAtContext(ctx, p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil:
		return io.ErrUnexpectedEOF
	}
	return err
}

// gitMode is an entry's mode as git writes it.
func gitMode(e *snapshot.Entry) uint32 {
	switch {
	case isLink(e.Mode):
		return unix.S_IFLNK
	case e.Mode&0o111 != 0:
		return 0o100755
	}
	return 0o100644
}

// gitName is a name as git writes it: in double quotes with escapes as in C
// where it has bytes that are not plain ASCII.
func gitName(name string) string {
	plain := !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r >= 0x7f || r == '"' || r == '\\' })
	if plain {
		return name
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(name) {
		switch c := name[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c >= 0x7f:
			fmt.Fprintf(&b, `\%03o`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// tabbed marks the end of a name that has spaces in it, as git does for patch.
func tabbed(name string) string {
	if strings.Contains(name, " ") && !strings.HasPrefix(name, `"`) {
		return name + "\t"
	}
	return name
}
