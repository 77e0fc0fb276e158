// Package image makes volumes that are btrfs where the disk is not: each lives
// in an image of its own, a sparse file, mounted in the folder's place.
//
// # Words
//
//   - place: the directory that images and their records lie in,
//     S4_LOOP_DEV_PATH or else /var/lib/s4.
//   - record: NAME.json beside NAME.img, which says where the image belongs. It
//     names the file system by its UUID and never by a loop device, whose number
//     changes from boot to boot.
//   - original: the folder as it was before it was converted.
//
// # Invariants
//
// A folder is copied, and the copy compared with it to the last byte, before
// anything of it is touched. Then the two change places; until its owner says
// that it may go, the original lies beside the volume under another name. What
// goes wrong before that leaves everything as it was: no image, no mount, no loop
// device and no subvolume. If the original turns out to have been changed at the last
// moment the two change places again; what was written to the copy until then is kept
// beside the folder, and so is the copy while a process has something of it open.
//
// The live tree is the subvolume [Subvolume] of the image's file system.
package image
