// Package replicate keeps a volume and its remotes in step, near real time: Push
// sends every change as a snapshot, and Mirror brings every snapshot.
//
// # How
//
// A watcher tells that the volume may have changed. Each remote has a worker
// that then pushes; what changes meanwhile waits and goes with the next push, so
// that a backlog is one snapshot, the newest, however long a remote was away. A
// push that fails is tried again after a while that doubles up to five minutes;
// one that would do harm, or for which a key is missing, ends its worker, since
// trying again would not help. What a remote has been given is recorded by the
// push itself, after the remote has committed: a process that is killed at any
// point and started again carries on.
package replicate
