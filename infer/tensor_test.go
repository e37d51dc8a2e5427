package infer

import (
	"errors"
	"math"
	"strings"
	"testing"
)

func quant(scale float32, zero int32) Quant {
	return Quant{Scales: []float32{scale}, ZeroPoints: []int32{zero}}
}

// classifier is a contract that passes Check.
func classifier() Contract {
	return Contract{
		Input:  TensorSpec{Name: "in", Shape: []int{1, 4, 6, 3}, DType: Uint8, Quant: quant(1, 0)},
		Output: TensorSpec{Name: "out", Shape: []int{1, 3}, DType: Int8, Quant: quant(1./256, -128)},
	}
}

func TestTensorSizes(t *testing.T) {
	for _, tc := range []struct {
		spec            TensorSpec
		elements, bytes int
	}{
		{TensorSpec{Shape: []int{1, 224, 224, 3}, DType: Uint8}, 150528, 150528},
		{TensorSpec{Shape: []int{1, 10}, DType: Float32}, 10, 40},
		{TensorSpec{Shape: []int{1, 10}, DType: "int16"}, 10, 0},
		{TensorSpec{DType: Int8}, 1, 1},
		{TensorSpec{Shape: []int{1, 0, 3}, DType: Int8}, 0, 0},
		{TensorSpec{Shape: []int{1, -1, -3}, DType: Int8}, 0, 0},
		{TensorSpec{Shape: []int{math.MaxInt, math.MaxInt}, DType: Int8}, 0, 0},
		{TensorSpec{Shape: []int{1 << 32, 1 << 32, 0}, DType: Int8}, 0, 0},
	} {
		if e, b := tc.spec.Elements(), tc.spec.Bytes(); e != tc.elements || b != tc.bytes {
			t.Errorf("%v: %d elements, %d bytes; want %d, %d", tc.spec, e, b, tc.elements, tc.bytes)
		}
	}
}

func TestInputGeometry(t *testing.T) {
	for _, tc := range []struct {
		shape    []int
		h, w, ch int
		layout   Layout
	}{
		{[]int{1, 224, 192, 3}, 224, 192, 3, NHWC},
		{[]int{1, 96, 96, 1}, 96, 96, 1, NHWC},
		{[]int{1, 3, 224, 192}, 224, 192, 3, NCHW},
		{[]int{1, 1, 28, 30}, 28, 30, 1, NCHW},
		{[]int{1, 3, 5, 3}, 3, 5, 3, NHWC},
		{[]int{1, 28, 30}, 28, 30, 1, NHWC},
	} {
		h, w, ch, layout, err := Contract{Input: TensorSpec{Shape: tc.shape}}.InputGeometry()
		if h != tc.h || w != tc.w || ch != tc.ch || layout != tc.layout || err != nil {
			t.Errorf("%v: %d × %d × %d %s, %v", tc.shape, h, w, ch, layout, err)
		}
	}
	for _, shape := range [][]int{nil, {1}, {224, 224}, {2, 224, 224, 3}, {1, 224, 224, 4}, {8, 28, 28}, {1, 1, 2, 3, 3}} {
		if _, _, _, _, err := (Contract{Input: TensorSpec{Shape: shape}}).InputGeometry(); !errors.Is(err, ErrContract) {
			t.Errorf("%v: %v", shape, err)
		}
	}
}

func TestContractCheck(t *testing.T) {
	if err := classifier().Check(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*Contract)
		words  string // empty: still good
	}{
		{"float without quantization", func(c *Contract) { c.Output = TensorSpec{Shape: []int{1, 3}, DType: Float32} }, ""},
		{"scales per channel", func(c *Contract) {
			c.Input.Quant = Quant{Scales: []float32{1, 2, 3}, ZeroPoints: []int32{0, 0, 0}, Axis: 3}
		}, ""},
		{"scales on another axis", func(c *Contract) {
			c.Input.Quant = Quant{Scales: []float32{1, 2, 3}, ZeroPoints: []int32{0, 0, 0}, Axis: 2}
		}, "do not fit dimension 2"},
		{"axis outside", func(c *Contract) {
			c.Input.Quant = Quant{Scales: []float32{1, 2}, ZeroPoints: []int32{0, 0}, Axis: -1}
		}, "do not fit dimension -1"},
		{"element type", func(c *Contract) { c.Output.DType = "int32" }, `output element type "int32"`},
		{"no picture", func(c *Contract) { c.Input.Shape = []int{1, 1024} }, "no single picture"},
		{"empty output", func(c *Contract) { c.Output.Shape = []int{1, 0} }, "empty or too large"},
		{"huge input", func(c *Contract) { c.Input.Shape = []int{1, 8192, 8192, 3} }, "empty or too large"},
		{"huge in bytes", func(c *Contract) { c.Input.Shape, c.Input.DType = []int{1, 4096, 4096, 3}, Float32 }, "empty or too large"},
		{"uint8 without quantization", func(c *Contract) { c.Input.Quant = Quant{} }, "without quantization parameters"},
		{"zero points missing", func(c *Contract) { c.Input.Quant.ZeroPoints = nil }, "1 scales and 0 zero points"},
		{"scale 0", func(c *Contract) { c.Input.Quant = quant(0, 0) }, "scale 0 is 0"},
		{"scale NaN", func(c *Contract) { c.Input.Quant = quant(float32(math.NaN()), 0) }, "NaN"},
		{"scale infinite", func(c *Contract) { c.Output.Quant = quant(float32(math.Inf(1)), 0) }, "+Inf"},
		{"too many classes", func(c *Contract) { c.Output.Shape = []int{1, MaxClasses + 1} }, "16385 classes"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := classifier()
			tc.change(&c)
			err := c.Check()
			if tc.words == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !errors.Is(err, ErrContract) || !strings.Contains(err.Error(), tc.words) {
				t.Errorf("%v, want %q", err, tc.words)
			}
		})
	}
}

func TestContractDiff(t *testing.T) {
	for _, tc := range []struct {
		name   string
		change func(*Contract)
		words  string // empty: no difference that matters
	}{
		{"nothing", func(*Contract) {}, ""},
		{"names", func(c *Contract) { c.Input.Name, c.Output.Name = "x", "y" }, ""},
		{"axis of one scale", func(c *Contract) { c.Input.Quant.Axis = 3 }, ""},
		{"type", func(c *Contract) { c.Input.DType = Int8 }, "input is int8, expected uint8"},
		{"shape", func(c *Contract) { c.Output.Shape = []int{1, 4} }, "output shape is [1 4], expected [1 3]"},
		{"scale", func(c *Contract) { c.Output.Quant = quant(0.5, -128) }, "output quantization"},
		{"zero point", func(c *Contract) { c.Output.Quant = quant(1./256, 0) }, "output quantization"},
		{"no quantization", func(c *Contract) { c.Output.Quant = Quant{} }, "output quantization"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := classifier()
			tc.change(&got)
			err := got.Diff(classifier())
			if (tc.words == "") != (err == nil) || err != nil && (!errors.Is(err, ErrContract) || !strings.Contains(err.Error(), tc.words)) {
				t.Errorf("%v, want %q", err, tc.words)
			}
		})
	}
}

func TestContractDiffSeesTheAxis(t *testing.T) {
	perChannel := func(axis int) Contract {
		c := classifier()
		c.Input.Shape = []int{1, 3, 3, 3}
		c.Input.Quant = Quant{Scales: []float32{1, 2, 3}, ZeroPoints: []int32{0, 0, 0}, Axis: axis}
		return c
	}
	if err := perChannel(1).Diff(perChannel(3)); !errors.Is(err, ErrContract) {
		t.Errorf("scales along 1 instead of 3: %v", err)
	}
}
