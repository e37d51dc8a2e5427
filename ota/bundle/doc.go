// Package bundle is the file by which a release travels without a network: the
// signed metadata of a fleet and the blobs of one release, written by drover
// bundle and dropped into a device's inbox.
//
// # Trust
//
// Nothing counts because it stands in a bundle. The metadata goes to ota/trust
// and the blobs to ota/fetch, like what a broker brings, and both check every
// byte against the fleet's keys. What this package checks is that a file is
// whole and well formed, so that a copy under way is told from one that is
// broken. The Head, above all, is only what the file says of itself.
//
// # Format
//
// A bundle is a tar archive in the plain POSIX form (USTAR), so that any tar
// program lists it. Its entries are regular files with names of this list and no
// others, in this order, without gaps:
//
//	drover-bundle      JSON: Head, with the size of the whole file
//	root.1.json        TUF metadata, raw: all roots, one after the other
//	root.2.json …
//	targets.N.json     the versions that the snapshot names
//	models.N.json
//	rollouts.N.json
//	current.json       wire.Current: timestamp and snapshot
//	{sha256}           blobs: the manifest of the release first, then golden
//	…                  inputs, deltas and models
//
// then the two blocks of zeros that end an archive, and nothing more. There is
// no compression: models hardly shrink, and nothing can blow up. Writing is one
// pass; whoever reads knows after the first block how long the file will be, and
// finds any chunk of any blob by one seek.
//
// # Limits
//
// MaxSize bytes and MaxEntries entries; each role and the manifest as in
// agent/wire; MaxRoots roots. Names hold no folders, links or devices, for there
// is no place for them in the list above.
package bundle
