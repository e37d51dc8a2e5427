// Package protocol is what a parent and a drover-infer child say to each other
// over a camera/ipc socketpair. Both sides import it; nothing else knows it.
//
//	child                             parent
//	Hello{runtime, delegates}     →
//	Sealed{report}                →             the child is locked up; only now:
//	                              ←  Load{spec, runtime} + model memfd [+ scratch memfd]
//	Loaded{…} or Refused{…}       →
//	                              ←  Attach{source} + ring memfd + eventfd
//	Result (binary, per frame)    →             until Detach{source}
//	                              ←  Run{id, what, header} pixels in scratch
//	Result (binary, source = Run) →
//	                              ←  Stop, or the socket closes: the child exits 0
//
// A child holds one model in its life. Frames of a ring and Run requests may be
// mixed; the child answers each Run exactly once and in order, and classifies
// of each ring only the newest frame. Control payloads are JSON, decoded
// strictly; results are fixed binary (Result). Scratch is a memfd of the
// parent that the child maps read-only: the pixels of Run requests, and of
// nothing else, stand there at offset 0 until the request is answered.
package protocol

import (
	"github.com/droverhq/drover/infer"
)

// Message kinds. Odd ones go to the child, even ones come from it.
const (
	KindLoad    byte = 1
	KindHello   byte = 2
	KindAttach  byte = 3
	KindSealed  byte = 4
	KindDetach  byte = 5
	KindLoaded  byte = 6
	KindRun     byte = 7
	KindRefused byte = 8
	KindStop    byte = 9
	KindResult  byte = 10
	KindFault   byte = 12
)

// Hello is the child's first message.
type Hello struct {
	Program string `json:"program"` // version of drover-infer
	TFLite  string `json:"tflite"`  // TfLiteVersion()
	OpenCV  string `json:"opencv"`
	CPU     string `json:"cpu"` // model name, for remembering measured choices
}

// Sealed says what holds the child from now on.
type Sealed struct {
	Seccomp bool     `json:"seccomp"`
	Gaps    []string `json:"gaps,omitempty"` // what the kernel could not enforce, in words
}

// Delegate says by what the model is to be run.
type Delegate string

// The delegates.
const (
	Builtin  Delegate = "builtin"  // the runtime's own kernels
	XNNPACK  Delegate = "xnnpack"  // falls back to Builtin when it refuses the model
	External Delegate = "external" // Runtime.Library, by tflite_plugin_create_delegate
)

// Runtime is how to run the model; the zero value is XNNPACK on one thread.
type Runtime struct {
	Delegate Delegate          `json:"delegate"`
	Threads  int               `json:"threads"`           // ≥ 1; 0 means 1
	Library  string            `json:"library,omitempty"` // External: path of the shared object
	Options  map[string]string `json:"options,omitempty"` // External: its options
}

// Load comes with the model's sealed memfd and, if Run will be used, the
// scratch memfd. Without Spec the child reads the contract off the model and
// answers only Run requests of kind tensor.
type Load struct {
	Spec         *infer.Spec `json:"spec,omitempty"`
	Runtime      Runtime     `json:"runtime"`
	ScratchBytes int         `json:"scratch_bytes,omitempty"`
}

// Loaded is the answer to Load when the model is ready; one warm-up inference
// has been run.
type Loaded struct {
	Contract   infer.Contract `json:"contract"`           // as the runtime sees it
	Delegate   Delegate       `json:"delegate"`           // really in use
	Fallback   string         `json:"fallback,omitempty"` // why it is not the one asked for
	LoadMicros int64          `json:"load_us"`
	WarmMicros int64          `json:"warm_us"` // the first inference
}

// RefusalKind names why a model cannot be run.
type RefusalKind string

// The refusals.
const (
	RefusedModel    RefusalKind = "model"     // no .tflite, or one the runtime rejects
	RefusedCustomOp RefusalKind = "custom-op" // needs an operator that is not here, e.g. edgetpu-custom-op
	RefusedContract RefusalKind = "contract"  // tensors differ from the spec
	RefusedDelegate RefusalKind = "delegate"  // the external delegate cannot be had
	RefusedMemory   RefusalKind = "memory"
	RefusedInternal RefusalKind = "internal"
)

// Refused is the answer to Load when the model cannot be run. The child then
// exits.
type Refused struct {
	Kind    RefusalKind `json:"kind"`
	Message string      `json:"message"` // the runtime's own words included
}

// Attach comes with a ring's memfd and an eventfd that is signalled for every
// new frame.
type Attach struct {
	Source uint32 `json:"source"` // chosen by the parent, comes back in results
	// MaxAgeMicros is how old a frame may be when its turn comes; an older one
	// is not classified but answered with TooOld. 0 means no limit.
	MaxAgeMicros int64 `json:"max_age_us,omitempty"`
}

// Detach stops reading a ring.
type Detach struct {
	Source uint32 `json:"source"`
}

// RunWhat says what stands in scratch and what is wanted.
type RunWhat string

// The requests.
const (
	RunFrame   RunWhat = "frame"   // pixels → output tensor
	RunPrepare RunWhat = "prepare" // pixels → input tensor, no inference
	RunTensor  RunWhat = "tensor"  // input tensor → output tensor
)

// Run asks for one picture.
type Run struct {
	ID     uint64  `json:"id"`
	What   RunWhat `json:"what"`
	Width  int     `json:"width,omitempty"`
	Height int     `json:"height,omitempty"`
	Stride int     `json:"stride,omitempty"`
	Format uint32  `json:"format,omitempty"` // camera.PixelFormat
	Bytes  int     `json:"bytes"`            // in scratch, from offset 0
}

// Fault is something the child survived, in words; the parent logs it.
type Fault struct {
	Message string `json:"message"`
}
