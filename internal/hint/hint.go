// Package hint attaches to an error what the person should type next.
package hint

import "errors"

type hinted struct {
	error
	hint string
}

func (e *hinted) Unwrap() error { return e.error }

// With returns err carrying the hint. A nil err stays nil.
func With(err error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, hint}
}

// Of returns the outermost hint that err carries, or "".
func Of(err error) string {
	if h, ok := errors.AsType[*hinted](err); ok {
		return h.hint
	}
	return ""
}
