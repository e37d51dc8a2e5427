package prep

import (
	"errors"
	"math"
	"testing"

	"github.com/droverhq/drover/infer"
)

// specOf is a spec of an input with 2 classes, stretched, bilinear, RGB.
func specOf(in infer.TensorSpec) infer.Spec {
	s := infer.Spec{
		Contract: infer.Contract{
			Input:  in,
			Output: infer.TensorSpec{Shape: []int{1, 2}, DType: infer.Float32},
		},
		Labels:      []string{"a", "b"},
		Preprocess:  infer.Preprocess{Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear, Mean: []float32{0}, Std: []float32{1}},
		Postprocess: infer.DefaultPostprocess(),
	}
	if _, _, ch, _, _ := s.Contract.InputGeometry(); ch == 1 {
		s.Preprocess.Color = infer.Gray
	}
	return s
}

// raw is an input that holds pixel values as they are.
func raw(shape ...int) infer.TensorSpec {
	return infer.TensorSpec{Shape: shape, DType: infer.Uint8, Quant: infer.Quant{Scales: []float32{1}, ZeroPoints: []int32{0}}}
}

func TestTablesQuantize(t *testing.T) {
	for _, tc := range []struct {
		name      string
		dtype     infer.DType
		scale     float32
		zero      int32
		mean, std float32
		want      map[int]int
	}{
		{"ImageNet uint8", infer.Uint8, 1. / 128, 128, 127.5, 127.5, map[int]int{0: 0, 127: 127, 128: 129, 191: 192, 255: 255}},
		{"ImageNet uint8, TF2", infer.Uint8, 0.007843138, 127, 127.5, 127.5, map[int]int{0: 0, 1: 1, 127: 127, 128: 127, 255: 254}},
		{"raw int8", infer.Int8, 1, -128, 0, 1, map[int]int{0: -128, 1: -127, 128: 0, 255: 127}},
		{"0…1 int8", infer.Int8, 1. / 255, -128, 0, 255, map[int]int{0: -128, 100: -28, 255: 127}},
		{"half away from zero, above", infer.Int8, 2, 0, 0, 1, map[int]int{1: 1, 3: 2, 5: 3, 255: 127}},
		{"half away from zero, below", infer.Int8, 2, 0, 100, 1, map[int]int{99: -1, 97: -2, 95: -3, 100: 0}},
		{"saturates below", infer.Int8, 0.01, 0, 100, 1, map[int]int{0: -128, 99: -100, 101: 100, 102: 127}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			in := infer.TensorSpec{Shape: []int{1, 2, 2, 1}, DType: tc.dtype, Quant: infer.Quant{Scales: []float32{tc.scale}, ZeroPoints: []int32{tc.zero}}}
			spec := specOf(in)
			spec.Preprocess.Mean, spec.Preprocess.Std = []float32{tc.mean}, []float32{tc.std}
			tables, err := makeTables(&spec)
			if err != nil {
				t.Fatal(err)
			}
			for p, want := range tc.want {
				got := int(tables[0].q[p])
				if tc.dtype == infer.Int8 {
					got = int(int8(got))
				}
				if got != want {
					t.Errorf("pixel %d becomes %d, want %d", p, got, want)
				}
			}
		})
	}
}

func TestTablesPerChannel(t *testing.T) {
	in := infer.TensorSpec{Shape: []int{1, 2, 2, 3}, DType: infer.Int8, Quant: infer.Quant{
		Scales: []float32{1, 2, 4}, ZeroPoints: []int32{-128, 0, 10}, Axis: 3}}
	spec := specOf(in)
	spec.Preprocess.Mean, spec.Preprocess.Std = []float32{0, 10, 20}, []float32{1, 2, 1}
	tables, err := makeTables(&spec)
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range []int8{100 - 128, 23, 20 + 10} { // (100−10)/2/2 = 22.5
		if got := int8(tables[c].q[100]); got != want {
			t.Errorf("channel %d: %d, want %d", c, got, want)
		}
	}
	spec.Contract.Input.Quant.Axis = 1
	if _, err := makeTables(&spec); !errors.Is(err, ErrSpec) {
		t.Errorf("quantized along the height: %v", err)
	}
}

func TestTablesFloat(t *testing.T) {
	spec := specOf(infer.TensorSpec{Shape: []int{1, 2, 2, 3}, DType: infer.Float32})
	spec.Preprocess.Mean, spec.Preprocess.Std = []float32{123.675, 116.28, 103.53}, []float32{58.395, 57.12, 57.375}
	tables, err := makeTables(&spec)
	if err != nil {
		t.Fatal(err)
	}
	for c, want := range []float64{(255 - 123.675) / 58.395, (255 - 116.28) / 57.12, (255 - 103.53) / 57.375} {
		if got := float64(math.Float32frombits(tables[c].f[255])); math.Abs(got-want) > 1e-6 {
			t.Errorf("channel %d: %v, want %v", c, got, want)
		}
	}
}
