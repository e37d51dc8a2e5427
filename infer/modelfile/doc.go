// Package modelfile reads and writes .tflite files in pure Go.
//
// A .tflite file is a FlatBuffer (identifier "TFL3", schema version 3): tables
// that point to each other by offsets. A model holds operator codes, buffers
// (constant data; number 0 is empty) and subgraphs of tensors and operators; a
// tensor names its buffer, an operator its code and its tensors by index. A
// metadata entry "TFLITE_METADATA" names a buffer that holds a second
// FlatBuffer (identifier "M001"): how the input is normalized and which files,
// such as the labels, belong to the model. Those files stand in a zip archive
// that is appended to the FlatBuffer.
//
// Parse stands between bytes from outside and the C library, which follows
// every offset without looking: what Parse accepts has all tables, vectors and
// strings that the library reads inside the file, in all subgraphs, and no
// index beyond its list. It says nothing about whether the library has the
// operators or likes their shapes, and it does not look into the options of
// custom operators or the indices of sparse tensors: that is one reason why a
// model runs only in a caged child.
//
// Builder writes such files; the same calls give the same bytes.
//
// Sources: the published TFLite schema (schema.fbs), the TFLite metadata
// schema (metadata_schema.fbs) and the FlatBuffers internals document, from
// which the slot numbers here are taken by hand.
package modelfile

import "errors"

// Kinds of refusal; every error of Parse wraps one of them.
var (
	ErrNotModel    = errors.New("modelfile: not a TFLite model")
	ErrTruncated   = errors.New("modelfile: model is cut off")
	ErrCorrupt     = errors.New("modelfile: model is corrupt")
	ErrLimit       = errors.New("modelfile: model exceeds a limit")
	ErrUnsupported = errors.New("modelfile: unsupported model")
)

// Limits of what Parse accepts. They are far above any classifier and keep a
// small hostile file from claiming much memory or time.
const (
	MaxSubgraphs = 256
	MaxTensors   = 1 << 16 // of one subgraph
	MaxOperators = 1 << 16 // of one subgraph
	MaxDims      = 16
	MaxNameBytes = 4096
	maxWork      = 1 << 20 // tables and copied vector elements of one file
)

// Identifier stands at byte 4 of every .tflite file.
const Identifier = "TFL3"

const schemaVersion = 3
