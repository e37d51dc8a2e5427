//go:build cgo

package prep

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

func frameOf(t testing.TB, format camera.PixelFormat, w, h int, pix ...byte) *camera.Frame {
	t.Helper()
	f := &camera.Frame{Seq: 1, Width: w, Height: h, Stride: w * format.Channels(), Format: format, Data: pix}
	if err := f.Check(); err != nil {
		t.Fatal(err)
	}
	return f
}

// padded is the same frame with bytes between its rows.
func padded(f *camera.Frame, extra int) *camera.Frame {
	g := *f
	g.Stride, g.Data = f.Stride+extra, nil
	for y := range f.Height {
		g.Data = append(g.Data, f.Data[y*f.Stride:(y+1)*f.Stride]...)
		g.Data = append(g.Data, bytes.Repeat([]byte{0xee}, extra)...)
	}
	return &g
}

func prepare(t testing.TB, spec infer.Spec, f *camera.Frame) []byte {
	t.Helper()
	p, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dst := make([]byte, spec.Contract.Input.Bytes())
	if err := p.Prepare(f, dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func TestPrepareByHand(t *testing.T) {
	color := frameOf(t, camera.BGR8, 2, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
	primaries := frameOf(t, camera.BGR8, 2, 2, 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255)
	gray := frameOf(t, camera.Gray8, 4, 4,
		10, 20, 30, 40,
		50, 60, 70, 80,
		90, 100, 110, 120,
		130, 140, 150, 160)
	wide := frameOf(t, camera.Gray8, 4, 2, 1, 2, 3, 4, 5, 6, 7, 8)
	for _, tc := range []struct {
		name  string
		shape []int
		frame *camera.Frame
		set   func(*infer.Preprocess)
		want  []byte
	}{
		{"same size, RGB", []int{1, 2, 2, 3}, color, nil, []byte{3, 2, 1, 6, 5, 4, 9, 8, 7, 12, 11, 10}},
		{"same size, BGR", []int{1, 2, 2, 3}, color, func(p *infer.Preprocess) { p.Color = infer.BGR }, []byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}},
		{"planar RGB", []int{1, 3, 2, 2}, color, nil, []byte{3, 6, 9, 12, 2, 5, 8, 11, 1, 4, 7, 10}},
		{"gray repeated", []int{1, 2, 2, 3}, frameOf(t, camera.Gray8, 2, 2, 1, 2, 3, 4), nil, []byte{1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4}},
		{"luma", []int{1, 2, 2, 1}, primaries, nil, []byte{29, 150, 76, 255}},
		{"luma, three dimensions", []int{1, 2, 2}, primaries, nil, []byte{29, 150, 76, 255}},
		{"area averages", []int{1, 2, 2, 1}, gray, func(p *infer.Preprocess) { p.Interpolation = infer.Area }, []byte{35, 55, 115, 135}},
		{"nearest takes the upper left", []int{1, 2, 2, 1}, gray, func(p *infer.Preprocess) { p.Interpolation = infer.Nearest }, []byte{10, 30, 90, 110}},
		{"bilinear between two", []int{1, 2, 2, 1}, gray, nil, []byte{35, 55, 115, 135}},
		{"antialias weighs by closeness", []int{1, 1, 2, 1}, frameOf(t, camera.Gray8, 4, 1, 0, 0, 70, 140), func(p *infer.Preprocess) { p.Interpolation = infer.Antialias }, []byte{10, 90}}, // weights 3 3 1 and 1 3 3
		{"antialias grows", []int{1, 1, 4, 1}, frameOf(t, camera.Gray8, 2, 1, 0, 100), func(p *infer.Preprocess) { p.Interpolation = infer.Antialias }, []byte{0, 25, 75, 100}},
		{"area does not grow", []int{1, 1, 4, 1}, frameOf(t, camera.Gray8, 2, 1, 0, 100), func(p *infer.Preprocess) { p.Interpolation = infer.Area }, []byte{0, 25, 75, 100}},
		{"crop", []int{1, 2, 2, 1}, wide, func(p *infer.Preprocess) { p.Fit = infer.Crop }, []byte{2, 3, 6, 7}},
		{"crop fraction", []int{1, 2, 2, 1}, gray, func(p *infer.Preprocess) { p.CropFraction = 0.5 }, []byte{60, 70, 100, 110}},
		{"letterbox", []int{1, 4, 4, 1}, wide, func(p *infer.Preprocess) { p.Fit, p.Pad = infer.Letterbox, 9 }, []byte{9, 9, 9, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 9}},
		{"letterbox in colour", []int{1, 2, 4, 3}, color, func(p *infer.Preprocess) { p.Fit, p.Pad = infer.Letterbox, 9 },
			[]byte{9, 9, 9, 3, 2, 1, 6, 5, 4, 9, 9, 9, 9, 9, 9, 9, 8, 7, 12, 11, 10, 9, 9, 9}},
		{"letterbox of luma", []int{1, 4, 2, 1}, primaries, func(p *infer.Preprocess) { p.Fit, p.Pad = infer.Letterbox, 9 }, []byte{9, 9, 29, 150, 76, 255, 9, 9}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			spec := specOf(raw(tc.shape...))
			if tc.set != nil {
				tc.set(&spec.Preprocess)
			}
			for _, f := range []*camera.Frame{tc.frame, padded(tc.frame, 1), padded(tc.frame, 64)} {
				before := bytes.Clone(f.Data)
				if got := prepare(t, spec, f); !bytes.Equal(got, tc.want) {
					t.Errorf("stride %d: %v, want %v", f.Stride, got, tc.want)
				}
				if !bytes.Equal(before, f.Data) {
					t.Error("the frame was changed")
				}
			}
		})
	}
}

func TestPrepareFloat(t *testing.T) {
	f := frameOf(t, camera.BGR8, 2, 1, 0, 51, 255, 102, 153, 204)
	for _, tc := range []struct {
		shape []int
		want  []float32
	}{
		{[]int{1, 1, 2, 3}, []float32{1, 0.2, 0, 0.8, 0.6, 0.4}},
		{[]int{1, 3, 1, 2}, []float32{1, 0.8, 0.2, 0.6, 0, 0.4}},
	} {
		in := infer.TensorSpec{Shape: tc.shape, DType: infer.Float32}
		spec := specOf(in)
		spec.Preprocess.Std = []float32{255}
		got := prepare(t, spec, f)
		for i, want := range tc.want {
			if v := math.Float32frombits(binary.LittleEndian.Uint32(got[4*i:])); math.Abs(float64(v-want)) > 1e-6 {
				t.Errorf("%v: element %d is %v, want %v", tc.shape, i, v, want)
			}
		}
	}
}

func TestPrepareRefuses(t *testing.T) {
	spec := specOf(raw(1, 2, 2, 3))
	p, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	dst := make([]byte, 12)
	for _, f := range []*camera.Frame{
		{},
		{Width: 2, Height: 2, Stride: 6, Format: camera.BGR8, Data: make([]byte, 11)},
		{Width: 2, Height: 2, Stride: 5, Format: camera.BGR8, Data: make([]byte, 10)},
		{Width: -2, Height: 2, Stride: 6, Format: camera.BGR8, Data: make([]byte, 12)},
		{Width: 2, Height: 2, Stride: 2, Format: 77, Data: make([]byte, 4)},
	} {
		if err := p.Prepare(f, dst); !errors.Is(err, camera.ErrFrame) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	good := frameOf(t, camera.Gray8, 1, 1, 5)
	if err := p.Prepare(good, dst[:11]); err == nil {
		t.Error("prepared into a tensor of another size")
	}
	if err := p.Prepare(good, dst); err != nil || dst[11] != 5 {
		t.Errorf("after refusals: %v, %v", err, dst)
	}
	spec.Labels = spec.Labels[:1]
	if _, err := New(spec); !errors.Is(err, infer.ErrContract) {
		t.Errorf("labels missing: %v", err)
	}
}
