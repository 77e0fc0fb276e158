// Package archive puts a directory tree into a borg repository: all of it, or
// what differs from an archive that is there.
//
// # Words
//
// A base is an archive that package borgio wrote, known by its outline. What is
// as it was there is neither read nor sent: its items stay where they are, in
// sections that both archives have. A [Changed] says of one path that it is
// otherwise, and what is known of its content all the same. Names are the several
// paths of one inode; the first of them in the order of [borgio.ComparePaths] is
// the master, which has the content.
//
// # Invariants
//
//   - All names of an inode are told when one of them comes, goes or differs, so
//     that the master is always the first. Ctimes do not show it where a name
//     moved along with a directory, so a scan tells of all inodes with several
//     names; and what btrfs tells is not enough then.
//   - What cannot be read is left out and reported. In an update the base's item
//     stays in its place: an older version is better than none. Who makes the next
//     archive from what btrfs tells has to name such paths to [Retry].
//   - A file's times are those from before it was read, so that what is written to
//     it meanwhile shows as a change the next time.
package archive
