package main

import (
	"bytes"
	"encoding/json"
	"io"
	"unicode/utf8"
)

// listJSON writes one JSON document with a list of any length, an element a
// line, without holding it.
type listJSON struct {
	w   io.Writer
	any bool
}

// listJSON begins the document: the fields of head, a struct that has some,
// and then the list under the given name.
func (a *app) listJSON(head any, name string) (*listJSON, error) {
	data, err := marshal(head)
	if err != nil {
		return nil, err
	}
	return &listJSON{w: a.stdout}, a.print("%s,\n\"%s\": [", bytes.TrimSuffix(data, []byte("}")), name)
}

// add writes one element.
func (l *listJSON) add(v any) error {
	data, err := marshal(v)
	if err != nil {
		return err
	}
	between := ",\n"
	if !l.any {
		between = "\n"
	}
	l.any = true
	_, err = l.w.Write(append([]byte(between), data...))
	return err
}

// end completes the document.
func (l *listJSON) end() error {
	_, err := io.WriteString(l.w, "\n]}\n")
	return err
}

// marshal is json.Marshal without escapes for web pages.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// bytesJSON is s for a field beside it where s is not UTF-8 and so does not
// show whole.
func bytesJSON(s string) []byte {
	if utf8.ValidString(s) {
		return nil
	}
	return []byte(s)
}
