package diff

import (
	"context"

	"github.com/s4-storage/s4/snapshot"
)

// Stat sums changes up.
type Stat struct {
	Added    int   `json:"added"` // paths
	Deleted  int   `json:"deleted"`
	Renamed  int   `json:"renamed"`
	Modified int   `json:"modified"` // other content or another type
	Metadata int   `json:"metadata"` // nothing but metadata
	Unsure   int   `json:"touched"`
	Plus     int64 `json:"bytes_added"`
	Minus    int64 `json:"bytes_deleted"`
}

// Weigh gives the bytes that a change brings and takes.
type Weigh func(ctx context.Context, c *Change) (plus, minus int64, err error)

// Add counts c in.
func (s *Stat) Add(ctx context.Context, c *Change, weigh Weigh) error {
	switch w := c.What; {
	case w&Added != 0:
		s.Added++
	case w&Removed != 0:
		s.Deleted++
	case w&Renamed != 0:
		s.Renamed++
	case w&(Content|Kind) != 0:
		s.Modified++
	case w&Unsure != 0:
		s.Unsure++
	default:
		s.Metadata++
	}
	plus, minus, err := weigh(ctx, c)
	s.Plus += plus
	s.Minus += minus
	return err
}

// BySize weighs a file that changed by how much it grew or shrank.
func BySize(_ context.Context, c *Change) (plus, minus int64, err error) {
	d := size(c.New) - size(c.Old)
	return max(d, 0), max(-d, 0), nil
}

// ByChunks weighs a file that changed by the extents that only one side has, or
// by size where these have no names: for two snapshots of one source.
func ByChunks(trees Trees) Weigh {
	return func(ctx context.Context, c *Change) (plus, minus int64, err error) {
		if c.What&(Content|Kind) == 0 || size(c.Old) == 0 || size(c.New) == 0 {
			return BySize(ctx, c)
		}
		old, err := trees.Content(ctx, c.Old.Version)
		if err != nil {
			return 0, 0, err
		}
		now, err := trees.Content(ctx, c.New.Version)
		if err != nil {
			return 0, 0, err
		}
		if len(old) == 0 || len(now) == 0 {
			return BySize(ctx, c)
		}
		count := map[[32]byte]int{}
		for _, x := range old {
			count[x.ID]++
		}
		kept := map[[32]byte]int{}
		for _, x := range now {
			if count[x.ID] > kept[x.ID] {
				kept[x.ID]++
			} else {
				plus += int64(x.Size)
			}
		}
		for _, x := range old {
			if kept[x.ID] > 0 {
				kept[x.ID]--
			} else {
				minus += int64(x.Size)
			}
		}
		return plus, minus, nil
	}
}

func size(e *snapshot.Entry) int64 {
	if e == nil {
		return 0
	}
	return e.Size
}
