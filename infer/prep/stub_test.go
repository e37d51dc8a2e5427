//go:build !cgo

package prep

import (
	"errors"
	"testing"

	"github.com/droverhq/drover/infer"
)

func TestStubSaysWhy(t *testing.T) {
	if _, err := New(infer.Spec{}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("New: %v", err)
	}
	if err := new(Plan).Prepare(nil, nil); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Prepare: %v", err)
	}
	if Supported {
		t.Error("Supported without cgo")
	}
}
