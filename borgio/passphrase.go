package borgio

import (
	"os"

	"github.com/s4-storage/s4/borgio/internal/keys"
)

// HasPassphraseEnv reports whether the environment gives a passphrase, so that
// nobody needs to be asked. It runs nothing. A nil environ is [os.LookupEnv].
func HasPassphraseEnv(environ func(string) (string, bool)) bool {
	if environ == nil {
		environ = os.LookupEnv
	}
	return keys.HasPassphraseEnv(environ)
}
