// Package tflite runs one classifier in the TensorFlow Lite C library.
//
// An Interpreter is a model with its tensors allocated, on the runtime's own
// kernels or on a delegate (XNNPACK, or any external delegate by dlopen). The
// caller writes the input tensor's memory, calls Invoke and reads the output
// tensor's memory; nothing is copied and nothing allocated.
//
// A model is untrusted: it is parsed in Go first, and the C library only sees
// what passed. That keeps accidents out, not attacks: a .tflite is code, and
// this package is meant for the caged child program drover-infer.
//
// go-tflite drives the interpreter. What it does not do safely is done here in
// C: the error reporter (the runtime's own words, per interpreter), models
// over memory that is not copied, XNNPACK's options, external delegates,
// per-channel quantization.
package tflite

import (
	"errors"
	"fmt"
)

// Delegate says what runs the model's operators. The values are those of
// protocol.Delegate.
type Delegate string

// The delegates.
const (
	Builtin  Delegate = "builtin"  // the runtime's own kernels
	XNNPACK  Delegate = "xnnpack"  // falls back to Builtin when it refuses the model
	External Delegate = "external" // Options.Library
)

// MaxThreads bounds Options.Threads.
const MaxThreads = 64

// Options says how to run a model; the zero value is XNNPACK on one thread.
type Options struct {
	Delegate Delegate          // empty means XNNPACK
	Threads  int               // 1…MaxThreads; 0 means 1
	Library  string            // External: path of the shared object
	Options  map[string]string // External: its options
}

// Kind names why a model is refused. The values are those of
// protocol.RefusalKind.
type Kind string

// The refusals.
const (
	KindModel    Kind = "model"     // no .tflite, or one the runtime rejects
	KindCustomOp Kind = "custom-op" // needs an operator that is not here
	KindContract Kind = "contract"  // tensors drover has no use for
	KindDelegate Kind = "delegate"  // the external delegate cannot be had
	KindMemory   Kind = "memory"
)

// Refusal says why a model cannot be run.
type Refusal struct {
	Kind   Kind
	Reason string // in our words
	Words  string // the runtime's own, may be empty
}

// Error joins the reason and the runtime's words.
func (r *Refusal) Error() string {
	if r.Words == "" {
		return "tflite: " + r.Reason
	}
	return "tflite: " + r.Reason + ": " + r.Words
}

// ErrUnavailable is returned by Open in a program built without cgo.
var ErrUnavailable = errors.New("tflite: this program was built without cgo, so without the TFLite runtime; use drover-infer")

// ErrInvoke is wrapped by errors of Invoke.
var ErrInvoke = errors.New("tflite: invoke")

func (o Options) withDefaults() (Options, error) {
	if o.Delegate == "" {
		o.Delegate = XNNPACK
	}
	if o.Threads == 0 {
		o.Threads = 1
	}
	switch {
	case o.Threads < 1 || o.Threads > MaxThreads:
		return o, &Refusal{Kind: KindDelegate, Reason: fmt.Sprintf("%d threads, allowed 1…%d", o.Threads, MaxThreads)}
	case o.Delegate == External && o.Library == "":
		return o, &Refusal{Kind: KindDelegate, Reason: "external delegate without a library"}
	case o.Delegate != Builtin && o.Delegate != XNNPACK && o.Delegate != External:
		return o, &Refusal{Kind: KindDelegate, Reason: fmt.Sprintf("unknown delegate %q (builtin, xnnpack or external)", o.Delegate)}
	}
	return o, nil
}
