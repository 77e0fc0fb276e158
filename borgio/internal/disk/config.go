package disk

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/s4-storage/s4/borgio/internal/fault"
)

// config is what the file "config" at a repository's root says.
type config struct {
	id             [32]byte
	segmentsPerDir int
	key            string // base64 of the key blob; "" when the key is elsewhere
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
	c.key = fields["key"]
	return c, nil
}
