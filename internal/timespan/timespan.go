// Package timespan reads spans of time as people type them.
package timespan

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// ErrUnknown says that a text is no span of time.
var ErrUnknown = errors.New("not a time")

// most is more days or weeks than anybody means, and few enough to be counted.
const most = 10_000

// Parse reads what [time.ParseDuration] does, and whole days and weeks, such as 7d
// or 4w, up to 10,000 of them. Errors: [ErrUnknown].
func Parse(text string) (time.Duration, error) {
	for unit, hours := range map[string]int{"d": 24, "w": 7 * 24} {
		if number, ok := strings.CutSuffix(text, unit); ok {
			n, err := strconv.ParseUint(number, 10, 16)
			if err != nil || n > most {
				return 0, ErrUnknown
			}
			return time.Duration(n) * time.Duration(hours) * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, ErrUnknown
	}
	return d, nil
}
