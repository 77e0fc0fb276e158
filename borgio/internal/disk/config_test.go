package disk

import (
	"errors"
	"math"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// TestLimits reads sizes and switches as Borg does, and takes none that it would not.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		segment, quota, appendOnly string
		want                       limits
		err                        error
	}{
		{"524288000", "", "0", limits{segment: 524288000}, nil},
		{"500M", "1.5T", "1", limits{segment: 500e6, quota: 15e11, appendOnly: true}, nil},
		{"1K", "2P", "Yes", limits{segment: 1000, quota: 2e15, appendOnly: true}, nil},
		{"1k", "", "0", limits{}, fault.ErrNotRepository},
		{"", "", "0", limits{}, fault.ErrNotRepository},
		{"-1", "", "0", limits{}, fault.ErrNotRepository},
		{"NaN", "", "0", limits{}, fault.ErrNotRepository},
		{"5G", "", "0", limits{}, fault.ErrUnsupported},
		{"1M", "1e30", "0", limits{}, fault.ErrNotRepository},
		{"1M", "", "maybe", limits{}, fault.ErrNotRepository},
	} {
		fields := map[string]string{"max_segment_size": c.segment, "append_only": c.appendOnly}
		if c.quota != "" {
			fields["storage_quota"] = c.quota
		}
		got, err := config{fields: fields}.limits()
		if !errors.Is(err, c.err) || err == nil && got != c.want {
			t.Errorf("%+v: %+v, %v", c, got, err)
		}
	}
}

// FuzzSize: a size is never negative, and what it is for is never beyond a segment.
func FuzzSize(f *testing.F) {
	for _, s := range []string{"1", "1.5G", "1e3K", "-0", "Inf", "9223372036854775807", "0x1p3", "P"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if n, err := parseSize(s); err == nil && (n < 0 || n == math.MaxInt64) {
			t.Errorf("%q is %d", s, n)
		}
	})
}
