package main

import (
	"runtime"
	"runtime/debug"
)

// version is set by the Makefile; without it the module's version is shown.
var version string

// VersionCmd is `s4 version`.
type VersionCmd struct{}

// Run does it.
func (c *VersionCmd) Run(a *app) error {
	v := version
	if v == "" {
		v = "devel"
		if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
			v = info.Main.Version
		}
	}
	if a.JSON {
		return a.printJSON(map[string]string{"version": v, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH})
	}
	return a.print("s4 version %s (%s, %s/%s)\n", v, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
