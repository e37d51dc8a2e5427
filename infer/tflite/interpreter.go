//go:build cgo

package tflite

/*
#cgo LDFLAGS: -ltensorflowlite_c -ldl
#include <stdlib.h>
#include "runtime.h"
*/
import "C"

import (
	"errors"
	"fmt"
	"regexp"
	"runtime"
	"unsafe"

	tf "github.com/tphakala/go-tflite"

	"github.com/droverhq/drover/infer"
)

// Supported says whether this program contains the TFLite runtime.
const Supported = true

// Version is the version of the TFLite runtime.
func Version() string { return C.GoString(C.TfLiteVersion()) }

// Interpreter is one loaded model. It is for one goroutine at a time. Close
// frees it; Input and Output must not be touched afterwards.
type Interpreter struct {
	contract infer.Contract
	used     Delegate
	fallback string
	input    []byte
	output   []byte

	model    []byte         // stays where it is while the runtime reads it
	pin      runtime.Pinner // of model
	words    *C.drover_words
	handle   modelHandle
	options  *tf.InterpreterOptions
	interp   *tf.Interpreter
	delegate delegate
}

// Open loads a model. The runtime reads the model's bytes in place: they must
// not change until Close. An error is a *Refusal.
//
// With XNNPACK, a model that the delegate refuses is loaded on the built-in
// kernels; Delegate then says why. With External there is no such fallback:
// who asks for an Edge TPU must know that it is not there.
func Open(model []byte, opts Options) (*Interpreter, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	kinds, err := inspect(model)
	if err != nil {
		return nil, err
	}
	if opts.Delegate != XNNPACK {
		return open(model, opts, 0)
	}
	fallback := "the model has no operators XNNPACK runs"
	if flags := kinds.flags(); kinds.any() {
		it, err := open(model, opts, flags)
		if err == nil {
			return it, nil
		}
		fallback = reason(err)
	}
	opts.Delegate = Builtin
	it, err := open(model, opts, 0)
	if err != nil {
		return nil, err
	}
	it.fallback = fallback
	return it, nil
}

func open(model []byte, opts Options, flags uint32) (_ *Interpreter, err error) {
	it := &Interpreter{model: model, used: opts.Delegate}
	it.words = (*C.drover_words)(C.calloc(1, C.sizeof_drover_words))
	defer func() {
		if err != nil {
			it.Close()
		}
	}()
	it.pin.Pin(&model[0])
	it.handle.m = C.TfLiteModelCreate(unsafe.Pointer(&model[0]), C.size_t(len(model)))
	if it.handle.m == nil {
		return nil, it.refuse(KindModel, "the runtime rejects the model")
	}
	it.options = tf.NewInterpreterOptions()
	it.options.SetNumThread(opts.Threads)
	C.drover_words_attach((*C.TfLiteInterpreterOptions)(pointer(it.options)), it.words)
	if err := it.addDelegate(opts, flags); err != nil {
		return nil, err
	}
	if it.interp = tf.NewInterpreter(it.handle.model(), it.options); it.interp == nil {
		return nil, it.refuse(KindModel, "the runtime cannot build the model's graph")
	}
	if it.interp.AllocateTensors() != tf.OK {
		return nil, it.refuse(KindModel, "the runtime cannot prepare the model")
	}
	if err := it.readContract(); err != nil {
		return nil, err
	}
	return it, nil
}

// Contract is what the runtime says about the input and the output tensor.
func (it *Interpreter) Contract() infer.Contract { return it.contract }

// Input is the memory of the input tensor.
func (it *Interpreter) Input() []byte { return it.input }

// Output is the memory of the output tensor; Invoke overwrites it.
func (it *Interpreter) Output() []byte { return it.output }

// Delegate says what runs the model and, if that is not what was asked for,
// why.
func (it *Interpreter) Delegate() (used Delegate, fallback string) { return it.used, it.fallback }

// Invoke runs the model on what stands in Input. The error wraps ErrInvoke and
// has the runtime's words.
func (it *Interpreter) Invoke() error {
	it.words.used, it.words.text[0] = 0, 0
	if s := it.interp.Invoke(); s != tf.OK {
		return fmt.Errorf("%w: status %d: %s", ErrInvoke, int(s), it.said())
	}
	return nil
}

// Close frees the model. A second Close does nothing.
func (it *Interpreter) Close() {
	if it.words == nil {
		return
	}
	it.input, it.output = nil, nil
	it.interp.Delete() // the delegate must outlive the interpreter
	it.options.Delete()
	it.delegate.close()
	C.TfLiteModelDelete(it.handle.m)
	it.pin.Unpin()
	C.free(unsafe.Pointer(it.words))
	it.words = nil
}

// reason is why XNNPACK refused, without what is obvious from the context.
func reason(err error) string {
	var r *Refusal
	if errors.As(err, &r) && r.Words != "" {
		return r.Words
	}
	return err.Error()
}

func (it *Interpreter) said() string { return C.GoString(&it.words.text[0]) }

var customOp = regexp.MustCompile(`unresolved custom op: ([^\s;]+?)\.?([\s;]|$)`)

func (it *Interpreter) refuse(kind Kind, reason string) *Refusal {
	words := it.said()
	if m := customOp.FindStringSubmatch(words); m != nil {
		return &Refusal{Kind: KindCustomOp, Reason: fmt.Sprintf("operator %q is not in this runtime", m[1]), Words: words}
	}
	return &Refusal{Kind: kind, Reason: reason, Words: words}
}

// modelHandle has the memory layout of tf.Model, whose constructor copies the
// model and never frees the copy.
type modelHandle struct{ m *C.TfLiteModel }

func (h *modelHandle) model() *tf.Model { return (*tf.Model)(unsafe.Pointer(h)) }

// pointer takes the C pointer out of one of go-tflite's one-field structs.
// layout_test.go fails if a new version adds a field.
func pointer[T tf.InterpreterOptions | tf.Tensor](p *T) unsafe.Pointer {
	return *(*unsafe.Pointer)(unsafe.Pointer(p))
}
