//go:build !cgo || !gocv_specific_modules || !gocv_videoio || !gocv_imgcodecs

package opencv

import (
	"context"

	"github.com/droverhq/drover/camera"
)

// Capture is never made in a program without OpenCV.
type Capture struct{}

// Open returns ErrNotBuilt, as a fault of kind internal.
func Open(context.Context, camera.Source, Patience) (*Capture, error) {
	return nil, &camera.Fault{Kind: camera.FaultInternal, Err: ErrNotBuilt}
}

// Read returns ErrNotBuilt.
func (*Capture) Read(*camera.Frame) error { return ErrNotBuilt }

// Skipped is 0.
func (*Capture) Skipped() (uint64, error) { return 0, nil }

// Info is empty.
func (*Capture) Info() Info { return Info{} }

// Close does nothing.
func (*Capture) Close() error { return nil }

// Encoder makes no JPEGs in a program without OpenCV.
type Encoder struct{}

// NewEncoder makes an Encoder that always fails.
func NewEncoder() *Encoder { return &Encoder{} }

// JPEG returns ErrNotBuilt.
func (*Encoder) JPEG(*camera.Frame, int, int) (jpeg []byte, width, height int, err error) {
	return nil, 0, 0, ErrNotBuilt
}

// Close does nothing.
func (*Encoder) Close() error { return nil }

// Version says that there is no OpenCV.
func Version() string { return "none" }
