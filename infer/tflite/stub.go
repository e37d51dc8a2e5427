//go:build !cgo

package tflite

import "github.com/droverhq/drover/infer"

// Supported says whether this program contains the TFLite runtime.
const Supported = false

// Interpreter cannot be had without cgo.
type Interpreter struct{}

// Version is empty without cgo.
func Version() string { return "" }

// Open returns ErrUnavailable.
func Open([]byte, Options) (*Interpreter, error) { return nil, ErrUnavailable }

// Contract is empty.
func (*Interpreter) Contract() infer.Contract { return infer.Contract{} }

// Input is nil.
func (*Interpreter) Input() []byte { return nil }

// Output is nil.
func (*Interpreter) Output() []byte { return nil }

// Delegate is empty.
func (*Interpreter) Delegate() (Delegate, string) { return "", "" }

// Invoke returns ErrUnavailable.
func (*Interpreter) Invoke() error { return ErrUnavailable }

// Close does nothing.
func (*Interpreter) Close() {}
