//go:build !cgo

package prep

import (
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// Supported says whether this program contains OpenCV.
const Supported = false

// Plan cannot be had without cgo.
type Plan struct{}

// OpenCV is empty without cgo.
func OpenCV() string { return "" }

// New returns ErrUnavailable.
func New(infer.Spec) (*Plan, error) { return nil, ErrUnavailable }

// Prepare returns ErrUnavailable.
func (*Plan) Prepare(*camera.Frame, []byte) error { return ErrUnavailable }

// Close does nothing.
func (*Plan) Close() {}
