// Package store keeps everything that must survive on the device, below one
// state folder, and writes all of it in one way.
//
// # Files
//
//	blobs/{sha256}        bytes whose digest was checked before they got this name
//	parts/{sha256}.part   bytes that arrive; nobody has checked them as a whole
//	slots.a, slots.b      which release is active, candidate and previous
//	journal.a, journal.b  where the running update stands
//	trust.a, trust.b      the last two generations of trust metadata
//	floor.a, floor.b      what trust may never go below
//
// # Writing
//
// A file is written under a temporary name, synced, renamed, and the folder is
// synced: a cut at any moment leaves the old file or the new one. Small
// records stand in two files each, with revision, length and checksum. Those
// that cost little to reproduce (journal, trust) are written alternately:
// damage to one file costs one step. Those that must not go back (slots,
// floor) are written to both.
//
// # Damage
//
// A damaged or missing file never keeps the store from opening and never takes
// another file with it. What was found is told by Store.Problems, as
// *CorruptError. A full disk is ErrNoSpace; nothing that stood before the
// attempt is lost by it.
package store
