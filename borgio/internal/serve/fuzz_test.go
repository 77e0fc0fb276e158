package serve

import (
	"bufio"
	"bytes"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/buffer"
	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// FuzzFrame reads answers that may be anything.
func FuzzFrame(f *testing.F) {
	f.Add([]byte("\x82\xa1i\x01\xa1r\xa3abc"))
	f.Add([]byte("\x82\xa1i\x01\xafexception_class\xaeObjectNotFound"))
	f.Add(packCall(7, "get", []arg{{"id", msgpack.AppendBytes(nil, make([]byte, 32))}}))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, pool := bufio.NewReader(bytes.NewReader(in)), &buffer.Pool{}
		for {
			b, err := readFrame(r, pool)
			if err != nil {
				return
			}
			if err := msgpack.NewReader(b.Data).Skip(); err != nil {
				t.Fatalf("frame %x: %v", b.Data, err)
			}
			if rep, err := parseReply(b.Data); err == nil {
				_, _, _ = serverVersion(rep.result)
			}
			b.Release()
		}
	})
}
