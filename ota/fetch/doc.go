// Package fetch brings a blob to the device, chunk by chunk, out of a source
// that nobody needs to trust.
//
// # How
//
// A fetch asks its Source for a window of chunks that are missing, and takes
// chunks as they come: those it asked for, and those that another device asked
// for on the shared topic. Every chunk is checked against its signed digest
// before it is written; a wrong one costs one chunk. What does not come is
// asked for again, with growing pauses; a fetch that gets nothing for
// Config.Retries pauses in a row ends with ErrStalled.
//
// The output is a Part, bytes nobody has checked as a whole. What an earlier
// run left in it is hashed again and kept where it is right, so that a restart
// costs at most what was not synced: one window.
//
// # What a rogue can do
//
// Whoever may publish on the blob topic can send bytes that are wrong, late,
// twice or not asked for. They are counted and dropped. All bytes received for
// the blob count against the Budget, right or wrong; when it is used up the
// fetch ends with ErrBudget.
//
// A manifest has no chunk digests, since nothing signed names them: its bytes
// are checked as a whole, by the store and by ota/trust.
package fetch
