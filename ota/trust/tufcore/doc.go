// Package tufcore is the verifier of The Update Framework that everything in
// drover stands on: bytes in, trusted metadata or a named refusal out. It does
// no I/O, knows no clock and no roles but those of the specification.
//
// What a caller demands beyond the specification is a Policy. Two use this
// package: ota/trust with the narrow policy of devices, and test/conformance
// with the specification alone, so that the public conformance suite exercises
// the code that devices run.
//
// A Verifier walks one chain: root versions one at a time, then timestamp,
// snapshot, and the targets roles that the snapshot lists. What is refused
// leaves no trace, so a better offer can follow. What was accepted before, in
// this run or earlier ones, is told by a Floor: the highest version per role,
// below which nothing is accepted, and what a root that takes away a key
// forgets.
package tufcore
