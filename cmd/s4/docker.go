package main

// DockerCmd is `s4 docker`.
type DockerCmd struct {
	Plugin DockerPluginCmd `cmd:"" help:"The volume driver for docker."`
}
