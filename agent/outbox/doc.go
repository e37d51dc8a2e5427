// Package outbox keeps what a device could not send yet.
//
// # Events
//
// Put queues a message that must arrive. Messages are sent in order, each until
// its sending has succeeded: at least once, for a kill between sending and
// noting it repeats one. The queue is bounded in number and in bytes; when it
// is full the oldest go, and are counted: a device that was away for a year
// should tell its last days.
//
// # Files
//
//	{first sequence number, 16 hexadecimal digits}.seg
//	    "DROVOB1\n", then records:
//	    length u32 | CRC-32C u32 | sequence u64 | topic length u16 | topic | payload
//	    (big endian; length and CRC are of what follows them)
//	cursor
//	    sequence u64 | CRC-32C u32: all up to this one is done with
//
// Segments are only appended to, and deleted as a whole. What does not check at
// the end of a segment, as a kill or a power cut leaves it, is cut off when the
// outbox is opened. A damaged cursor counts as none: messages are repeated.
//
// # Sync
//
// Put writes at once, so a message survives the end of the process from then
// on. Run syncs the file every SyncEvery (one second), so a power cut costs at
// most that; a sync for each would wear out flash and stop the caller for tens
// of milliseconds. The cursor is never synced.
//
// # Disk full
//
// What cannot be written stays in memory, the newest within fixed bounds, and
// Problem says so. As soon as writing succeeds again it goes to the file.
//
// # State
//
// Latest is for topics where only the newest message counts: one slot a topic,
// in memory, for the device makes it anew after a start.
package outbox
