package keys

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/s4-storage/s4/borgio/internal/msgpack"
)

// FuzzKey opens key blobs that may be anything. The seeds are real.
func FuzzKey(f *testing.F) {
	for _, name := range []string{"keyfile", "keyfile-blake2"} {
		_, text, err := readKeyfile("../../testdata/keys/" + name)
		if err != nil {
			f.Fatal(err)
		}
		blob, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(text, "\n", ""))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(blob)
	}
	f.Add(msgpack.AppendBytes(msgpack.AppendBytes(msgpack.AppendMap(nil, 1), "id_key"), make([]byte, 128)))
	f.Fuzz(func(t *testing.T, in []byte) {
		if k, err := Parse(base64.StdEncoding.EncodeToString(in)); err == nil && k.iterations < 10 {
			_, _ = k.open("s4-test")
		}
		if m, err := parseKeyMaterial(in); err == nil {
			for typ := range byte(8) {
				_, _ = New(typ, m)
			}
		}
	})
}
