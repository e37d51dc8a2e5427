//go:build !cgo

package tflite

import (
	"errors"
	"testing"
)

func TestStubSaysWhy(t *testing.T) {
	if _, err := Open(nil, Options{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Open: %v", err)
	}
	if Supported {
		t.Error("Supported without cgo")
	}
	var it Interpreter
	if err := it.Invoke(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Invoke: %v", err)
	}
}
