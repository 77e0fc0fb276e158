// Package dockeragent backs up the docker volumes of a compose project.
//
// # Words
//
//	agent      the process that does it; in a container of the project it
//	           carries the label [LabelAgent]
//	project    the containers with one com.docker.compose.project label
//	rules      what the labels s4.* of one container ask for
//	plan       the docker volumes of a project and by which rules each is
//	           backed up, as they are now
//	user       a container that mounts a docker volume
//	hold       users of a volume paused or stopped for the time of a backup
//	journal    the file that lists what is held, so that a crash leaves no
//	           service down
//
// # Which volumes
//
// Those that containers of the project mount and that have names; the labels
// of the containers choose among them. Two containers that share a volume
// merge their rules. A bind mount, a volume without a name and one that nobody
// mounts are told of, but not backed up.
//
// A volume without a single file in it is never backed up ([ErrEmpty]): it is
// what a mistyped name, a lost disk or a restore that did not happen looks
// like, and pushed it would become the newest snapshot. Nothing is lost by
// that, as there is nothing in it. That a volume was made later than its
// service is not asked: the engine gives a volume's time in whole seconds and
// takes it from a directory that also changes later.
//
// # Invariants
//
// A container is in the journal, on disk, before it is paused or stopped, and
// leaves it only after it runs again. What was not running before is left
// alone, and so is what somebody else started or removed meanwhile. No backup
// begins while the journal lists something that no backup of this process
// holds.
package dockeragent
