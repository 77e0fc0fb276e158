package timespan

import (
	"errors"
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"36h": 36 * time.Hour, "1h30m": 90 * time.Minute, "7d": 7 * 24 * time.Hour, "4w": 28 * 24 * time.Hour,
		"0d": 0, "-1h": -time.Hour, "10000w": 10000 * 7 * 24 * time.Hour,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "7", "d", "w", "1.5d", "-1d", "+1d", "alld", "10001d", "10001w", "65535w", "1d2h", "7 d", "x"} {
		if got, err := Parse(text); !errors.Is(err, ErrUnknown) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
