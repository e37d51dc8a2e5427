// Package fetch brings a blob to the device, chunk by chunk, out of sources that
// nobody needs to trust.
//
// # Sources
//
// There are three kinds, in the order in which they are asked:
//
//   - near Readers cost nothing: a folder of blobs that came on a USB stick;
//   - the Source is the hub, reached through the broker. What it sends goes to
//     every device that listens, so that a thousand devices cost about one copy;
//   - far Readers cost the hub a copy for each device: HTTPS range requests.
//
// Any of them may bring any chunk of a blob. A request is for a window of
// chunks at most, and one source is asked at a time. One that fails, or brings
// nothing for a pause, rests for a time that doubles, and the next is asked for
// the same chunks; the hub, which may be gathering a crowd, is given two more and
// longer pauses first; what the first brings late is still taken. So a chunk is paid
// for twice only after a whole pause without any.
//
// # Asking and listening
//
// Every chunk that comes is taken, whether this device asked for it or another
// did, and checked against its signed digest before it is written; a wrong one
// costs one chunk. When half a window is here the next is asked for. A chunk
// that others of the same request have overtaken is lost: it is asked for again
// after all others, and after a short random time in which the request of
// another device may bring it.
//
// When nothing comes for a pause, a Settler is first asked to see that nothing is
// on its way any more: what waits in the broker must not be sent twice.
//
// A fetch that gets nothing for Config.Retries pauses in a row ends with
// ErrStalled. Config.Rate bounds what is asked for in a second. When the shared
// topic has brought 1.2 times the blob, or far more than the rate, the Source is
// told to leave it and to ask for what is missing alone (Repairer).
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
