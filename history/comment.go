package history

import (
	"strings"
)

// Trailers is what s4 records in an archive's comment.
type Trailers struct {
	Message  string // of the person who pushed
	Volume   string // id of the volume
	Snapshot string // id of the snapshot, the same in every source
	Parent   string // id of the snapshot that it was made on top of
}

const (
	volumeTrailer   = "s4-volume: "
	snapshotTrailer = "s4-snapshot: "
	parentTrailer   = "s4-parent: "
)

// FormatComment makes the comment of an archive: the message and, after an
// empty line, a trailer for each id that is not empty.
func FormatComment(message, volume, id, parent string) string {
	var lines []string
	for _, t := range []struct{ key, value string }{
		{volumeTrailer, volume}, {snapshotTrailer, id}, {parentTrailer, parent},
	} {
		if t.value != "" {
			lines = append(lines, t.key+t.value)
		}
	}
	message = strings.TrimRight(message, "\n")
	switch {
	case len(lines) == 0:
		return message
	case message != "":
		message += "\n\n"
	}
	return message + strings.Join(lines, "\n")
}

// ParseComment takes a comment apart. A last paragraph that is not trailers
// alone belongs to the message.
func ParseComment(comment string) Trailers {
	trimmed := strings.TrimRight(comment, "\n")
	message, block := "", trimmed
	if i := strings.LastIndex(trimmed, "\n\n"); i >= 0 {
		message, block = trimmed[:i], trimmed[i+2:]
	}
	var t Trailers
	for line := range strings.SplitSeq(block, "\n") {
		set := false
		for key, value := range map[string]*string{
			volumeTrailer: &t.Volume, snapshotTrailer: &t.Snapshot, parentTrailer: &t.Parent,
		} {
			if v, ok := strings.CutPrefix(line, key); ok && *value == "" && strings.TrimSpace(v) != "" {
				*value, set = strings.TrimSpace(v), true
			}
		}
		if !set {
			return Trailers{Message: trimmed}
		}
	}
	t.Message = strings.TrimRight(message, "\n")
	return t
}
