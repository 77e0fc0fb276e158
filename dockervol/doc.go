// Package dockervol keeps docker's volumes as s4 volumes: it is the backend of
// package dockerplugin.
//
// # Words
//
//   - image: the sparse file with the btrfs that a docker volume lives on; its
//     live tree is a subvolume, which becomes an s4 volume of the docker
//     volume's name.
//   - keeper: what goes on for a volume as long as it is mounted: it is
//     replicated, and grows before it is full.
//   - cover: an empty tmpfs over .s4, where containers look.
//
// # On disk
//
// Beside what the driver has in a volume's directory:
//
//	image.img    the image
//	live/        the live tree, mounted for s4 alone
//	data/        the live tree once more, for containers, its .s4 covered
//	history/     in the place of data with history=on: the live tree through
//	             s4's own mount, a process that outlives the driver; where such
//	             processes died, the mount of each lies on the dead one's
//	served/      where that process mounts
//	source/      while it is filled from another volume: that one's live tree
//	restoring    there while one of its snapshots is put in the live tree's place
//	status.json  how replication was doing when the volume was last unmounted
//
// # What holds
//
//   - A volume in which nobody has put anything is empty, without .s4: docker
//     fills a new volume with what the image has in its place, and databases
//     make their files, only where there is nothing. It becomes an s4 volume
//     with its first file, and nothing empty is ever pushed.
//   - Containers do not see what is in .s4: the images of many databases give
//     all files below their directory to a user of theirs at each start, and
//     would fail at read-only snapshots. The cover comes before there is
//     anything in .s4. With history=on, .s4 is what is wanted.
//   - What is mounted for containers is shared, and docker gives it to them as a
//     slave: a cover, or a new mount over a dead one, appears in those that run.
//   - Nothing is needed but the directory to carry on after a crash: what is
//     mounted is asked of the kernel, what was pushed the volume knows itself.
package dockervol
