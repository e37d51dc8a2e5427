//go:build !cgo || !gocv_specific_modules || !gocv_videoio || !gocv_imgcodecs

package opencv

import (
	"context"
	"errors"
	"testing"

	"github.com/droverhq/drover/camera"
)

func TestStubSaysWhatIsMissing(t *testing.T) {
	src, err := camera.ParseSource("/dev/video0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), src, Patience{}); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("Open: %v", err)
	}
	if _, _, _, err := NewEncoder().JPEG(&camera.Frame{}, 1, 1); !errors.Is(err, ErrNotBuilt) {
		t.Errorf("JPEG: %v", err)
	}
	if Version() != "none" {
		t.Errorf("version %q", Version())
	}
}
