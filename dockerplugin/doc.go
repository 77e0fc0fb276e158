// Package dockerplugin is docker's volume driver of s4: what `docker volume
// create -d s4` and containers' mounts end at.
//
// # Words
//
//   - The engine is dockerd. It calls the driver over a unix socket with the
//     [volume plugin protocol], version 1; a call is one POST.
//   - A volume here is a docker volume, known by its name.
//   - A mount ID is the engine's random name for one container's use of a
//     volume. The volume is mounted as long as its set of mount IDs is not
//     empty. A set, since after a crash the engine repeats some IDs and never
//     ends others; a counter would be wrong for good.
//   - A fill brings a volume's content from its remote, in the background.
//   - The backend ([Volumes], [Content]) is what stores and mounts.
//
// # On disk
//
//	DIR/lock                      held while a driver runs
//	DIR/volumes/NAME/volume.json  the volume's record; beside it what the backend stores
//	DIR/trash/TIME.NAME/          the same, of a removed volume
//
// Removing is one rename, so a volume is either here or in the trash. To take
// one back, stop the driver and move its directory back.
//
// # What holds
//
//   - The engine is never called: it opens its own API only after it has
//     loaded plugins and volumes, and would wait for us while we wait for it.
//   - A call ends before the engine gives up on it, with a reason.
//   - Calls for one volume are served one after the other, for different
//     volumes independently. List, Get and Path wait for nothing.
//   - A mount ID is recorded after the volume is mounted and forgotten before
//     it is unmounted: after a crash a volume may be mounted without need,
//     which the next start finds, but none is recorded that is not.
//
// [volume plugin protocol]: https://docs.docker.com/engine/extend/plugins_volume/
package dockerplugin
