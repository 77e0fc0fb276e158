package main

import (
	"context"
	"errors"
	"io/fs"

	"github.com/s4-storage/s4/borgio"
	"github.com/s4-storage/s4/snapshot"
)

// Exit codes, documented in docs/manual.md and stable.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitRefused     = 4
	exitUnreachable = 5
	exitLocked      = 6
	exitDamaged     = 7
	exitKey         = 8
	exitInterrupted = 130
)

// exitCode is the one table from errors to exit codes. The first that err
// wraps counts: what protects data and what a person can act on come before
// what is merely missing.
func exitCode(err error) int {
	table := []struct {
		kind error
		code int
	}{
		{snapshot.ErrUsage, exitUsage},
		{snapshot.ErrRefused, exitRefused},
		{snapshot.ErrKey, exitKey},
		{borgio.ErrPassphrase, exitKey},
		{borgio.ErrNoPassphrase, exitKey},
		{borgio.ErrKeyMissing, exitKey},
		{borgio.ErrKeyMismatch, exitKey},
		{borgio.ErrKeyDamaged, exitKey},
		{borgio.ErrKeyKind, exitKey},
		{snapshot.ErrLocked, exitLocked},
		{borgio.ErrLocked, exitLocked},
		{snapshot.ErrUnreachable, exitUnreachable},
		{borgio.ErrUnreachable, exitUnreachable},
		{borgio.ErrNoBorg, exitUnreachable},
		{borgio.ErrHostKey, exitUnreachable},
		{snapshot.ErrDamaged, exitDamaged},
		{borgio.ErrIntegrity, exitDamaged},
		{fs.ErrNotExist, exitNotFound},
		{context.Canceled, exitInterrupted},
	}
	if r, ok := errors.AsType[*reported](err); ok {
		return r.code
	}
	for _, row := range table {
		if errors.Is(err, row.kind) {
			return row.code
		}
	}
	return exitFailed
}
