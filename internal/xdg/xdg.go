// Package xdg finds s4's own directories for the user, as the XDG base
// directory specification says.
package xdg

import (
	"os"
	"path/filepath"
)

// Cache is for what can be made anew.
func Cache() string { return dir("XDG_CACHE_HOME", ".cache") }

// State is for what is remembered from run to run.
func State() string { return dir("XDG_STATE_HOME", ".local/state") }

// Config is for settings.
func Config() string { return dir("XDG_CONFIG_HOME", ".config") }

// Runtime is for sockets and the like, of this user alone.
func Runtime() string {
	if base := os.Getenv("XDG_RUNTIME_DIR"); filepath.IsAbs(base) {
		return filepath.Join(base, "s4")
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
