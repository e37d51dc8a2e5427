// Package delta makes and applies differences between two models.
//
// # Idea
//
// A model that was trained further differs from its predecessor in little:
// weights that moved by a quantum or two, or a new head on the same backbone.
// Make parses both files and aligns their tensors by name, shape and place. What
// is equal is copied; what moved is subtracted, and the differences, most of
// them zero, are written by an adaptive arithmetic coder near their entropy;
// what is new goes through the same coder or through zstd, which may refer to
// any part of the base. Files that are no models are treated as a whole. Of
// several plans the smallest counts.
//
// Apply rebuilds the target, byte for byte, or fails. It is made for a small
// device and for hostile bytes: beside the base it needs at most 8 MiB, its
// time is linear in the size of the target, and nothing it reads can make it
// write more than the header says.
//
// # Format, version 1
//
//	4  magic "DRVd"
//	1  version, 1
//	8  the first bytes of the base's SHA-256
//	16 the first bytes of the target's SHA-256
//	uvarint  size of the base, of the target, of stream A, of stream B
//	stream A, stream B, and nothing after them
//
// Stream A is arithmetic coded. It is a list of operations that together give
// exactly the target; each is its kind, its length in bytes (at least 1) and:
//
//	copy   base offset
//	sub    base offset, width; then per element the difference to the base
//	new    width, model, centre; then the elements
//	lz     nothing; the bytes are the next ones of stream B
//
// Numbers are an adaptive bit count and adaptive bits. An offset is coded as
// its zigzag distance from the end of the base bytes used last. A width w is 1,
// 2, 4 or 8: the length is a multiple of it, and elements are little-endian.
//
// A difference is taken modulo 2^(8w). For w = 1 it is a flag for zero, a sign,
// a flag for magnitude 1, and a magnitude less 2 of 7 bits, all in the context of
// the mean magnitude of the last differences (of 4096; a 32nd of the way to each
// new one; its bit length counts); for others it is zigzag coded and its bytes
// follow from the highest one, each in the context of its place and of whether
// a higher one was not zero. New elements are bytes coded from the highest bit,
// in the context of their place in the element or, in the model "level", of the
// mean distance of the last bytes from the centre (of 256; likewise a 32nd; in
// half octaves).
//
// The coder keeps an interval [x1, x2] of 64 bits. A bit of probability p (16
// bits, of being 1) splits it at x1 + (x2-x1)>>16 · p; equal leading bytes are
// shifted out. Behind its end a stream reads as zeros. A probability has 22
// bits and moves to the bit seen by 1/(n+1.5), n being how often it was used, at
// most 1023. What a probability stands for lives as long as the delta.
//
// Stream B is frames: uvarint size of the content (1 … 1 MiB), uvarint size of
// what follows, and one zstd frame whose raw dictionary, number 1, is the whole
// base (frames without dictionary have none).
//
// An arithmetic decoder takes any bytes for a message. So it is the digests that
// tell: a wrong base is refused before anything is written, a wrong result at
// the end. Apply's writer must not be trusted before Apply has returned nil.
package delta

import "errors"

// What Apply may answer beside errors of its reader and writer.
var (
	ErrFormat = errors.New("delta: not a delta this program can read")
	ErrBase   = errors.New("delta: made for another base")
	ErrTarget = errors.New("delta: result differs from the target")
)

// MaxSize bounds base and target, in bytes.
const MaxSize = 512 << 20

const (
	magic    = "DRVd"
	version  = 1
	baseSum  = 8  // bytes of the base's digest
	goalSum  = 16 // bytes of the target's digest
	maxFrame = 1 << 20
	dictID   = 1
)
