// Package train makes a classifier out of labelled pictures: it trains a small
// network from scratch, quantizes it to int8 and writes a .tflite file that the
// official runtime runs.
//
// A network is a list of layers. A Layer holds the parameters, which do not
// change during a step; a Pass of a layer holds the activations and gradients
// of one shard of a batch. A batch is cut into a fixed number of shards, which
// run in parallel; their gradients are added in shard order. So the same seed,
// data and spec give the same bytes on any number of cores of one kind of
// processor.
//
// The trainer sees pictures as the real values of the model's input, prepared
// by the device's own code; how they were prepared is recorded in the model
// beside its labels. Whether the written model is any good is not judged here:
// that is done by package evaluate through the device's own runtime.
package train

import "errors"

// Kinds of failure; errors of this package wrap one of them, or the context's.
var (
	ErrSpec     = errors.New("train: invalid spec")
	ErrData     = errors.New("train: unusable data")
	ErrDiverged = errors.New("train: training diverged")
	ErrExport   = errors.New("train: cannot write model")
)
