package loop

import (
	"fmt"
	"math"
	"strconv"

	"github.com/s4-storage/s4/internal/bytesize"
)

// Target is a size to resize to, as it is typed.
type Target struct {
	kind  targetKind
	bytes int64
}

type targetKind int

const (
	exactly targetKind = iota
	more
	less
	asLarge
	asSmall
)

// Bytes is the target of exactly n bytes.
func Bytes(n int64) Target { return Target{exactly, n} }

// ParseTarget reads a target: a size such as 20G, a change such as +5G or -5G,
// or min or max.
func ParseTarget(text string) (Target, error) {
	switch text {
	case "max":
		return Target{kind: asLarge}, nil
	case "min":
		return Target{kind: asSmall}, nil
	}
	t, size := Target{}, text
	if text != "" {
		switch text[0] {
		case '+':
			t.kind, size = more, text[1:]
		case '-':
			t.kind, size = less, text[1:]
		}
	}
	n, err := bytesize.Parse(size)
	if err != nil {
		return Target{}, fmt.Errorf("%w; to resize, also +5G, -5G, min or max", err)
	}
	t.bytes = n
	return t, nil
}

func (t Target) String() string {
	n := strconv.FormatInt(t.bytes, 10)
	switch t.kind {
	case more:
		return "+" + n
	case less:
		return "-" + n
	case asLarge:
		return "max"
	case asSmall:
		return "min"
	}
	return n
}

// resolve returns the size that a target means for a volume. It only does
// arithmetic; whether that size is possible is another question.
func (t Target) resolve(u Usage, reserve int64) int64 {
	size := t.bytes
	switch t.kind {
	case more:
		if size = math.MaxInt64; t.bytes < math.MaxInt64-u.Size {
			size = u.Size + t.bytes
		}
	case less:
		size = max(u.Size-t.bytes, 0)
	case asLarge: // never shrinks
		size = max(u.Max(reserve), u.Size)
	case asSmall: // never grows
		size = min(u.Min, u.Size)
	}
	return size - size%sector
}
