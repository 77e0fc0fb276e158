// Package lock takes the locks by which BorgBackup 1.x processes keep out of
// each other's way, so that Borg and this program respect one another.
//
// # Words
//
// A holder is a process on a host. The lock directory belongs to the holder
// whose name is the one file in it. The roster lists holders: of shared locks,
// who read, and of the exclusive one, who writes. A lock is stale when its
// holder is a process of this very host that is gone.
//
// # Format
//
//	lock.exclusive/HOST.PID-THREAD   empty; PID decimal, THREAD hexadecimal
//	lock.roster                      {"shared": [[HOST, PID, THREAD], …], "exclusive": […]}
//
// HOST is $BORG_HOST_ID, or the host's full name, "@", and the number that its
// network card has. THREAD is zero. The source is Borg's locking.py, and
// platform/base.py for names.
//
// The lock directory is made under another name and renamed, which works only
// where no directory with something in it is: that is what makes it exclusive.
// The roster is read and written by its owner only. A writer owns it until it
// is done; a reader only for as long as it changes the roster.
//
// # Invariants
//
//   - No lock is taken away from a holder on another host, with a name that
//     makes no sense, or that may be alive.
//   - A holder's name in the lock directory is a file that it keeps locked by
//     flock(2) when it is this program. Where processes cannot see each other, or
//     a number is used again, as in containers, Borg's own test would go wrong.
package lock
