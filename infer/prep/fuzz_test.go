//go:build cgo

package prep

import (
	"errors"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// FuzzPrepare: a frame's header and pixels come out of a process that decodes
// hostile streams.
func FuzzPrepare(f *testing.F) {
	for i, frame := range []*camera.Frame{scene(camera.BGR8, 9, 5), scene(camera.Gray8, 3, 17), padded(scene(camera.BGR8, 4, 4), 2)} {
		if len(frame.Data) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(frame.Width, frame.Height, frame.Stride, uint32(frame.Format), frame.Data, byte(i*5))
	}
	fits := []infer.Fit{infer.Stretch, infer.Crop, infer.Letterbox}
	resamplers := []infer.Interpolation{infer.Antialias, infer.Bilinear, infer.Area, infer.Nearest}
	f.Fuzz(func(t *testing.T, w, h, stride int, format uint32, data []byte, choice byte) {
		spec := specOf(raw(1, 8, 6, 1+2*int(choice&1)))
		spec.Preprocess.Fit = fits[int(choice)%3]
		spec.Preprocess.Interpolation = resamplers[int(choice/3)%4]
		p, err := New(spec)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		frame := &camera.Frame{Width: w, Height: h, Stride: stride, Format: camera.PixelFormat(format), Data: data}
		err = p.Prepare(frame, make([]byte, spec.Contract.Input.Bytes()))
		if (err == nil) != (frame.Check() == nil) || err != nil && !errors.Is(err, camera.ErrFrame) {
			t.Errorf("prepare: %v; the frame: %v", err, frame.Check())
		}
	})
}
