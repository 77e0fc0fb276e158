// Package xdg finds s4's own directories for the user, as the XDG base
// directory specification says.
package xdg

import (
	"os"
	"path/filepath"
	"syscall"
)

// Cache is for what can be made anew.
func Cache() string { return dir("XDG_CACHE_HOME", ".cache") }

// State is for what is remembered from run to run.
func State() string { return dir("XDG_STATE_HOME", ".local/state") }

// Config is for settings.
func Config() string { return dir("XDG_CONFIG_HOME", ".config") }

// Runtime is for sockets and the like, of this user alone: not where sudo left the
// directory of another.
func Runtime() string {
	base := os.Getenv("XDG_RUNTIME_DIR")
	if info, err := os.Stat(base); err == nil && filepath.IsAbs(base) {
		if s, ok := info.Sys().(*syscall.Stat_t); ok && int(s.Uid) == os.Geteuid() {
			return filepath.Join(base, "s4")
		}
	}
	return Cache()
}

func dir(variable, fallback string) string {
	base := os.Getenv(variable)
	if !filepath.IsAbs(base) {
		home, err := os.UserHomeDir()
		if err != nil { // a service without a home
			home = "/var/lib"
		}
		base = filepath.Join(home, fallback)
	}
	return filepath.Join(base, "s4")
}
