package borgio

import (
	"context"
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

// PassphraseFromEnv gets the passphrase as borg does: from BORG_PASSPHRASE
// (which may be empty), else the output of BORG_PASSCOMMAND, else what can be
// read from the file descriptor BORG_PASSPHRASE_FD, which is used up by it.
// ok is false when none is set. A nil environ is [os.LookupEnv].
func PassphraseFromEnv(ctx context.Context, environ func(string) (string, bool)) (passphrase string, ok bool, err error) {
	if environ == nil {
		environ = os.LookupEnv
	}
	return keys.PassphraseFromEnv(ctx, environ)
}
