// Package inbox takes releases that come by hand: bundles (ota/bundle) dropped
// into a folder, or found on a USB stick.
//
// # Folders
//
// The inbox is one folder of the device. Media are folders below which sticks
// get mounted; bundles are looked for in them, in their folders, and in folders
// named drover in those. Only regular files whose names end in .drover count.
// Folders are watched (fsnotify), looked at when the daemon starts, and at an
// interval, for a mount over a folder that is there tells nobody.
//
// # One file
//
// A file must have been left alone for Config.Quiet; then it must be whole, with
// the archive's end and every blob as its name says. One that is not may still be
// on its way. When it has not changed for Config.Patience it is refused.
//
// A whole file is judged: the device's own verifier says, without any effect,
// what it thinks of the metadata. A refusal ends here, by name. Otherwise the
// metadata is offered to the verifier and the file becomes one more source of
// chunks, trusted with nothing; the update takes the states that any update
// takes, and the file waits for its end.
//
//	settling → broken → refused
//	         → taken → done | refused
//
// What is done goes to the folder done, what is refused gets .refused behind its
// name and a text with the reason beside it; of both the newest few are kept. On
// a stick nothing is written. Every end is an event.
//
// # What a rogue can do
//
// Whoever may write into the folder can make the device read files, at most
// MaxFiles of them, and keep the newest few. He can offer what the fleet's owner
// signed and nothing else.
package inbox
