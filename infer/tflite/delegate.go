//go:build cgo

package tflite

/*
#include <stdlib.h>
#include "runtime.h"
*/
import "C"

import (
	"fmt"
	"maps"
	"slices"
	"unsafe"
)

// Flags of XNNPACK's options, as its header names them: which quantized
// operators it may take.
const (
	flagQS8 = 1
	flagQU8 = 2
)

// delegate owns what a delegate needs for as long as an interpreter uses it.
type delegate struct {
	xnnpack  *C.TfLiteDelegate
	external C.drover_external
	strings  []*C.char   // option keys and values
	arrays   [2]**C.char // of those
}

// ptr lets go-tflite add a delegate.
type ptr struct{ d *C.TfLiteDelegate }

// Ptr is the C delegate.
func (p ptr) Ptr() unsafe.Pointer { return unsafe.Pointer(p.d) }

// Delete does nothing: the delegate belongs to the interpreter, which frees it
// last.
func (ptr) Delete() {}

func (it *Interpreter) addDelegate(opts Options, flags uint32) error {
	d := &it.delegate
	switch opts.Delegate {
	case XNNPACK:
		d.xnnpack = C.drover_xnnpack_create(C.int32_t(opts.Threads), C.uint32_t(flags))
		if d.xnnpack == nil {
			return it.refuse(KindDelegate, "XNNPACK is not in this runtime")
		}
		it.options.AddDelegate(ptr{d.xnnpack})
	case External:
		if err := it.openExternal(opts); err != nil {
			return err
		}
		it.options.AddDelegate(ptr{d.external.delegate})
	}
	return nil
}

func (it *Interpreter) openExternal(opts Options) error {
	d := &it.delegate
	n := len(opts.Options)
	for i := range d.arrays {
		d.arrays[i] = (**C.char)(C.calloc(C.size_t(n+1), C.size_t(unsafe.Sizeof(uintptr(0)))))
	}
	keys, values := unsafe.Slice(d.arrays[0], n+1), unsafe.Slice(d.arrays[1], n+1)
	for i, k := range slices.Sorted(maps.Keys(opts.Options)) {
		keys[i], values[i] = C.CString(k), C.CString(opts.Options[k])
		d.strings = append(d.strings, keys[i], values[i])
	}
	path := C.CString(opts.Library)
	defer C.free(unsafe.Pointer(path))
	// The struct lives in Go memory, so it is filled through a local copy: C
	// must not keep a pointer to it, and does not.
	var external C.drover_external
	rc := C.drover_external_open(&external, path, d.arrays[0], d.arrays[1], C.size_t(n), it.words)
	d.external = external
	if rc != 0 {
		return &Refusal{Kind: KindDelegate, Reason: fmt.Sprintf("external delegate %s", opts.Library), Words: it.said()}
	}
	return nil
}

func (d *delegate) close() {
	if d.xnnpack != nil {
		C.drover_xnnpack_delete(d.xnnpack)
		d.xnnpack = nil
	}
	external := d.external
	C.drover_external_close(&external)
	d.external = external
	for _, s := range d.strings {
		C.free(unsafe.Pointer(s))
	}
	for _, a := range d.arrays {
		C.free(unsafe.Pointer(a))
	}
	d.strings, d.arrays = nil, [2]**C.char{}
}
