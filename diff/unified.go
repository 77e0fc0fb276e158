package diff

import (
	"bytes"
	"fmt"
	"io"
)

// around is how many equal lines stand before and after what differs.
const around = 3

// unified writes the hunks of a unified diff from old to now. Show makes a
// line, which still has its end, fit for the reader.
func unified(w io.Writer, old, now []byte, show func([]byte) []byte) error {
	a, b := lines(old), lines(now)
	goes, comes := compare(a, b)
	var out bytes.Buffer
	h := hunk{show: show}
	i, j := 0, 0
	for i < len(a) || j < len(b) {
		if i < len(a) && !goes[i] && (j == len(b) || !comes[j]) {
			h.equal(&out, a[i])
			i, j = i+1, j+1
			continue
		}
		h.begin(i, j)
		for ; i < len(a) && goes[i]; i++ {
			h.line('-', a[i])
			h.oldCount++
		}
		for ; j < len(b) && comes[j]; j++ {
			h.line('+', b[j])
			h.newCount++
		}
		if out.Len() > 1<<20 {
			if _, err := out.WriteTo(w); err != nil {
				return err
			}
		}
	}
	h.end(&out)
	_, err := out.WriteTo(w)
	return err
}

// hunk is one in the making: what differs with equal lines around it.
type hunk struct {
	show               func([]byte) []byte
	before             [][]byte // the last equal lines, while no hunk is open
	text               bytes.Buffer
	oldStart, newStart int
	oldCount, newCount int
	open               bool
	held               [][]byte // equal lines since the last that differs
}

func (h *hunk) begin(i, j int) {
	if !h.open {
		h.open = true
		h.oldStart, h.newStart = i-len(h.before), j-len(h.before)
		h.held, h.before = h.before, nil
	}
	for _, l := range h.held {
		h.line(' ', l)
		h.oldCount++
		h.newCount++
	}
	h.held = nil
}

func (h *hunk) equal(out *bytes.Buffer, line []byte) {
	if !h.open {
		if len(h.before) == around {
			h.before = append(h.before[:0:0], h.before[1:]...)
		}
		h.before = append(h.before, line)
		return
	}
	h.held = append(h.held, line)
	if len(h.held) > 2*around {
		rest := h.held[len(h.held)-around:]
		h.held = h.held[:around]
		h.end(out)
		h.before = rest
	}
}

func (h *hunk) line(mark byte, line []byte) {
	h.text.WriteByte(mark)
	h.text.Write(h.show(line))
	if !bytes.HasSuffix(line, []byte("\n")) {
		h.text.WriteString("\n\\ No newline at end of file\n")
	}
}

// end writes the hunk that is open, if one is.
func (h *hunk) end(out *bytes.Buffer) {
	if !h.open {
		return
	}
	held := h.held[:min(len(h.held), around)]
	for _, l := range held {
		h.line(' ', l)
		h.oldCount++
		h.newCount++
	}
	fmt.Fprintf(out, "@@ -%s +%s @@\n", span(h.oldStart, h.oldCount), span(h.newStart, h.newCount))
	_, _ = h.text.WriteTo(out) // never fails
	*h = hunk{show: h.show}
}

// span is a hunk's place; one without lines stands after the line it names.
func span(start, count int) string {
	switch count {
	case 0:
		return fmt.Sprintf("%d,0", start)
	case 1:
		return fmt.Sprint(start + 1)
	}
	return fmt.Sprintf("%d,%d", start+1, count)
}
