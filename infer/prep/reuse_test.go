//go:build cgo

package prep

import (
	"bytes"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

func TestFramesOfChangingShape(t *testing.T) {
	for _, shape := range [][]int{{1, 16, 16, 3}, {1, 16, 16, 1}} {
		for _, fit := range []infer.Fit{infer.Stretch, infer.Crop, infer.Letterbox} {
			spec := specOf(raw(shape...))
			spec.Preprocess.Fit = fit
			p, err := New(spec)
			if err != nil {
				t.Fatal(err)
			}
			dst := make([]byte, spec.Contract.Input.Bytes())
			for i, f := range []*camera.Frame{
				scene(camera.BGR8, 40, 30), scene(camera.Gray8, 40, 30), scene(camera.BGR8, 16, 16), scene(camera.BGR8, 16, 9),
				scene(camera.Gray8, 16, 16), scene(camera.BGR8, 9, 16), scene(camera.BGR8, 40, 30), scene(camera.Gray8, 1, 1),
			} {
				if err := p.Prepare(f, dst); err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(dst, prepare(t, spec, f)) {
					t.Errorf("%v %s: frame %d differs from what a new plan makes of it", shape, fit, i)
				}
			}
			p.Close()
			p.Close()
		}
	}
}

func TestPrepareDoesNotAllocate(t *testing.T) {
	for _, shape := range [][]int{{1, 64, 64, 3}, {1, 64, 64, 1}, {1, 3, 64, 64}} {
		for _, fit := range []infer.Fit{infer.Stretch, infer.Crop, infer.Letterbox} {
			for dtype, inter := range map[infer.DType]infer.Interpolation{infer.Uint8: infer.Antialias, infer.Float32: infer.Bilinear} {
				spec := specOf(raw(shape...))
				spec.Preprocess.Fit = fit
				spec.Contract.Input.DType = dtype
				spec.Preprocess.Interpolation = inter
				p, err := New(spec)
				if err != nil {
					t.Fatal(err)
				}
				dst := make([]byte, spec.Contract.Input.Bytes())
				f := scene(camera.BGR8, 160, 120)
				if n := testing.AllocsPerRun(5, func() {
					if err := p.Prepare(f, dst); err != nil {
						t.Fatal(err)
					}
				}); n != 0 {
					t.Errorf("%v %s %s: %v allocations a frame", shape, fit, dtype, n)
				}
				p.Close()
			}
		}
	}
}

func BenchmarkPrepare(b *testing.B) {
	for _, bc := range []struct {
		name   string
		frame  *camera.Frame
		inter  infer.Interpolation
		dtype  infer.DType
		layout []int
	}{
		{"1080p-bilinear-uint8", scene(camera.BGR8, 1920, 1080), infer.Bilinear, infer.Uint8, []int{1, 224, 224, 3}},
		{"1080p-area-uint8", scene(camera.BGR8, 1920, 1080), infer.Area, infer.Uint8, []int{1, 224, 224, 3}},
		{"1080p-antialias-uint8", scene(camera.BGR8, 1920, 1080), infer.Antialias, infer.Uint8, []int{1, 224, 224, 3}},
		{"480p-antialias-uint8", scene(camera.BGR8, 640, 480), infer.Antialias, infer.Uint8, []int{1, 224, 224, 3}},
		{"480p-bilinear-uint8", scene(camera.BGR8, 640, 480), infer.Bilinear, infer.Uint8, []int{1, 224, 224, 3}},
		{"480p-bilinear-float32-nchw", scene(camera.BGR8, 640, 480), infer.Bilinear, infer.Float32, []int{1, 3, 224, 224}},
		{"same-size-uint8", scene(camera.BGR8, 224, 224), infer.Bilinear, infer.Uint8, []int{1, 224, 224, 3}},
	} {
		b.Run(bc.name, func(b *testing.B) {
			spec := specOf(raw(bc.layout...))
			spec.Preprocess.Fit, spec.Preprocess.CropFraction, spec.Preprocess.Interpolation = infer.Crop, 0.875, bc.inter
			if bc.name == "same-size-uint8" {
				spec.Preprocess.CropFraction = 1
			}
			spec.Contract.Input.DType = bc.dtype
			p, err := New(spec)
			if err != nil {
				b.Fatal(err)
			}
			defer p.Close()
			dst := make([]byte, spec.Contract.Input.Bytes())
			for b.Loop() {
				if err := p.Prepare(bc.frame, dst); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
