package disk

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// config is what the file "config" at a repository's root says.
type config struct {
	id             [32]byte
	segmentsPerDir int
	key            string // base64 of the key blob; "" when the key is elsewhere
	fields         map[string]string
}

// maxConfigBytes bounds the file; Borg's have under 2 KB.
const maxConfigBytes = 64 << 10

// maxSegmentsPerDir keeps the arithmetic with segment numbers in range.
const maxSegmentsPerDir = 1 << 30

// readConfig reads and checks the configuration of the repository in dir.
func readConfig(dir string) (config, error) {
	f, size, err := openRegular(dir + "/config")
	if errors.Is(err, errNotRegular) || err == nil && size > maxConfigBytes {
		err = fmt.Errorf("%w: %s has no proper config file", fault.ErrNotRepository, dir)
	}
	if err != nil {
		return config{}, err
	}
	defer f.Close()
	fields, err := parseINI(bufio.NewScanner(io.LimitReader(f, maxConfigBytes)))
	if err != nil {
		return config{}, err
	}
	return newConfig(fields)
}

// parseINI reads the section [repository] of Python's ConfigParser format:
// key = value, continued on lines that begin with white space. It allocates at
// most 64 bytes for each that it reads.
func parseINI(lines *bufio.Scanner) (map[string]string, error) {
	values := map[string]*strings.Builder{}
	lines.Buffer(nil, maxConfigBytes)
	section := ""
	var last *strings.Builder
	for lines.Scan() {
		line := lines.Text()
		trimmed := strings.TrimSpace(line)
		switch {
		case trimmed == "" || trimmed[0] == '#' || trimmed[0] == ';':
		case trimmed != line && (line[0] == ' ' || line[0] == '\t') && last != nil:
			last.WriteString("\n" + trimmed)
		case trimmed[0] == '[':
			section, last = strings.Trim(trimmed, "[]"), nil
		case section == "repository":
			i := strings.IndexAny(trimmed, "=:")
			if i < 0 {
				continue
			}
			last = &strings.Builder{}
			last.WriteString(strings.TrimSpace(trimmed[i+1:]))
			values[strings.ToLower(strings.TrimSpace(trimmed[:i]))] = last
		}
	}
	fields := make(map[string]string, len(values))
	for key, value := range values {
		fields[key] = value.String()
	}
	return fields, lines.Err()
}

func newConfig(fields map[string]string) (c config, err error) {
	version, ok := fields["version"]
	if !ok {
		return c, fmt.Errorf("%w: config names no version", fault.ErrNotRepository)
	}
	if version != "1" {
		return c, fmt.Errorf("%w: repository version %.20q", fault.ErrUnsupported, version)
	}
	id, err := hex.DecodeString(fields["id"])
	if err != nil || len(id) != len(c.id) {
		return c, fmt.Errorf("%w: config: id %.70q", fault.ErrNotRepository, fields["id"])
	}
	c.id = [32]byte(id)
	c.segmentsPerDir, err = strconv.Atoi(fields["segments_per_dir"])
	if err != nil || c.segmentsPerDir < 1 || c.segmentsPerDir > maxSegmentsPerDir {
		return c, fmt.Errorf("%w: config: segments_per_dir %.20q", fault.ErrNotRepository, fields["segments_per_dir"])
	}
	c.key, c.fields = fields["key"], fields
	return c, nil
}

// limits are what the configuration asks of writers, in bytes.
type limits struct {
	segment    int64
	quota      int64 // 0: none
	keepFree   int64 // on the file system
	appendOnly bool
}

// maxSegmentLimit is what Borg allows a segment to be configured for: offsets
// in it must fit 32 bits.
const maxSegmentLimit = 1<<32 - 1 - maxEntrySize

// limits reads what only writers need, so that readers do not fail on it.
func (c config) limits() (l limits, err error) {
	for _, f := range []struct {
		name, unset string
		into        *int64
	}{{"max_segment_size", "", &l.segment}, {"storage_quota", "0", &l.quota}, {"additional_free_space", "0", &l.keepFree}} {
		text, ok := c.fields[f.name]
		if !ok {
			text = f.unset
		}
		if *f.into, err = parseSize(text); err != nil {
			return l, fmt.Errorf("%w: config: %s: %w", fault.ErrNotRepository, f.name, err)
		}
	}
	if l.segment >= maxSegmentLimit {
		return l, fmt.Errorf("%w: config: max_segment_size %d", fault.ErrUnsupported, l.segment)
	}
	switch strings.ToLower(c.fields["append_only"]) {
	case "", "0", "no", "false", "off":
	case "1", "yes", "true", "on":
		l.appendOnly = true
	default:
		return l, fmt.Errorf("%w: config: append_only %.20q", fault.ErrNotRepository, c.fields["append_only"])
	}
	return l, nil
}

// parseSize reads a number of bytes, with a decimal unit or without.
func parseSize(s string) (int64, error) {
	unit := 1.0
	if s != "" {
		if i := strings.IndexByte("KMGTP", s[len(s)-1]); i >= 0 {
			unit, s = math.Pow(1000, float64(i+1)), s[:len(s)-1]
		}
	}
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(n) || n < 0 || n*unit >= math.MaxInt64 {
		return 0, fmt.Errorf("size %.40q", s)
	}
	return int64(n * unit), nil
}
