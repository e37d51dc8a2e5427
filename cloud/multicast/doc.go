// Package multicast answers requests for chunks: it puts the requests of all
// devices together and publishes each wanted chunk once, on a topic that all of
// them listen to. A thousand devices that start the same update cost about one
// copy.
//
// # When a chunk is sent
//
// The first time, after a moment in which requests are gathered: a twentieth of a
// second for one device, longer with each that joins in, and until those that
// lately asked for another blob ask for this one, but never more than 8 s. While the blob flows, what is asked for next
// follows at once: everybody listens.
//
// The second time is the last on the shared topic within an hour, so it waits
// until the first pass is over and those who missed something have had the time
// to say so. With one device asking that is a twentieth of a second, with
// hundreds two, and less for a blob of few chunks. A device misses a chunk when it says so (wire.Get.Again),
// or when the blob flowed before the device first asked for it; otherwise the
// chunk is still on its way, or the request was: the longer the broker takes for
// a chunk, the longer that may be.
//
// After that, and for devices that left the shared topic, a chunk goes to the
// device's own topic.
//
// # What a rogue can do
//
// A device is served only blobs that Config.Allowed grants it. What its requests
// cause to be sent is paid for out of its own bucket for that blob, twice the
// blob's chunks, which refills in an hour; when it is empty nothing is sent for
// it, and nobody else's bucket is touched. The most it can do to others is to
// use up the second pass, whereupon they are repaired one by one. Requests have
// a bucket of their own, and everything remembered is bounded.
package multicast
