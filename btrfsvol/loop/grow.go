package loop

import (
	"context"
	"log/slog"
)

// GrowPolicy says when and how far a volume grows by itself.
//
// It grows when less than 15 % of it is free, or less than 1 GiB (than half of
// it, where it is smaller than 2 GiB): what a program writes at 500 MB/s
// between two looks some seconds apart. It grows by a quarter, at least 1 GiB
// and at most 64 GiB, so that a large volume does not promise itself much more
// than it needs.
type GrowPolicy struct {
	Limit   int64 // the size beyond which it does not grow; 0 is none
	Reserve int64 // what the host keeps free; see [Reserve]
}

const (
	growBelow = 15 // per cent of the size that are free
	growFloor = 1 * gib
	growMin   = 1 * gib
	growMax   = 64 * gib
	// growLeast is not worth growing by when the limit or the host allow no
	// more.
	growLeast = 64 * mib
)

// low is how much must be free.
func low(size int64) int64 { return max(size/100*growBelow, min(growFloor, size/2)) }

// Decide returns the size that a volume should have: its own when it need not
// grow.
//
// Errors, each with the volume's own size, for there is nothing to be done but
// to tell somebody: *[HostFullError] when the host's disk does not let it grow,
// or has less than its reserve while the volume's image has not all it
// promises, so that even what seems free may not be; [ErrLimit] when it should
// grow and has reached its limit.
func (p GrowPolicy) Decide(u Usage) (int64, error) {
	reserve := Reserve(p.Reserve, u.HostSize)
	if u.HostFree < reserve && u.Allocated < u.ImageSize {
		return u.Size, &HostFullError{Free: u.HostFree, Reserve: reserve}
	}
	if u.Free >= low(u.Size) {
		return u.Size, nil
	}
	least := max(u.Size+growLeast, MinResize)
	want := max(u.Size+min(max(u.Size/4, growMin), growMax), least)
	if p.Limit > 0 && want > p.Limit {
		if p.Limit < least {
			return u.Size, ErrLimit
		}
		want = p.Limit
	}
	if possible := u.Max(p.Reserve); want > possible {
		if possible < least {
			return u.Size, &HostFullError{Free: u.HostFree, Reserve: reserve, Want: want - u.Size}
		}
		want = possible
	}
	return want - want%mib, nil
}

// Growth is what [Grow] did: nothing when both are the same.
type Growth struct{ From, To int64 }

// Grow looks at the volume in which dir is once, and lets it grow if the
// policy says so.
//
// Errors: those of [GrowPolicy.Decide] and [Resize].
func Grow(ctx context.Context, dir string, p GrowPolicy, log *slog.Logger) (Growth, error) {
	u, err := ReadUsage(dir)
	if err != nil {
		return Growth{}, err
	}
	g := Growth{From: u.Size, To: u.Size}
	size, err := p.Decide(u)
	if err != nil || size <= u.Size {
		return g, err
	}
	after, err := Resize(ctx, dir, Bytes(size), ResizeOptions{Reserve: p.Reserve, Log: log})
	if err != nil {
		return g, err
	}
	g.To = after.Size
	return g, nil
}
