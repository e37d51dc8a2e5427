// Package infer says what a classifier is to drover: its input and output
// tensors with their quantization parameters (the I/O contract), its labels,
// how a frame becomes the input tensor (Preprocess) and how the output tensor
// becomes scores (Postprocess). All of it together is a Spec, which a release
// carries and every part of drover, device and cloud, reads the same way.
//
// The package is pure Go. Running a model needs the TFLite runtime, which only
// the child program drover-infer loads; infer/host starts it.
package infer

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Limits of a classifier drover handles.
const (
	MaxClasses     = 16384
	MaxTensorBytes = 64 * 1024 * 1024
	MaxModelBytes  = 512 * 1024 * 1024
	MaxLabelBytes  = 256
)

// DType is the type of a tensor's elements.
type DType string

// The element types drover accepts at a classifier's input and output.
const (
	Uint8   DType = "uint8"
	Int8    DType = "int8"
	Float32 DType = "float32"
)

// Size is the bytes of one element, or 0 for an unknown type.
func (t DType) Size() int {
	switch t {
	case Uint8, Int8:
		return 1
	case Float32:
		return 4
	}
	return 0
}

// Quant holds a tensor's quantization parameters: real = scale × (q − zero
// point). One scale means per tensor, several mean per channel along Axis;
// none means the tensor is not quantized.
// Source: TensorFlow Lite 8-bit quantization specification.
type Quant struct {
	Scales     []float32 `json:"scales,omitempty"`
	ZeroPoints []int32   `json:"zero_points,omitempty"`
	Axis       int       `json:"axis,omitempty"`
}

// TensorSpec describes one tensor.
type TensorSpec struct {
	Name  string `json:"name,omitempty"`
	Shape []int  `json:"shape"`
	DType DType  `json:"dtype"`
	Quant Quant  `json:"quant"`
}

// Elements is the product of the shape; 0 if a dimension is not positive or
// the product exceeds MaxTensorBytes.
func (t TensorSpec) Elements() int {
	n := 1
	for _, d := range t.Shape {
		if d < 1 || n > MaxTensorBytes/d {
			return 0
		}
		n *= d
	}
	return n
}

// Bytes is the size of the tensor's data.
func (t TensorSpec) Bytes() int { return t.Elements() * t.DType.Size() }

// Contract is what a classifier takes and gives: one input, one output.
type Contract struct {
	Input  TensorSpec `json:"input"`
	Output TensorSpec `json:"output"`
}

// ErrContract is wrapped by every error about tensors that do not fit.
var ErrContract = errors.New("infer: I/O contract")

// Layout tells where the channels stand in the input shape.
type Layout string

// The two layouts of a batch of one picture.
const (
	NHWC Layout = "nhwc" // [1, height, width, channels]
	NCHW Layout = "nchw" // [1, channels, height, width]
)

// InputGeometry reads height, width, channels and layout out of the input
// shape: four dimensions, batch 1, and 1 or 3 channels either last (preferred)
// or second; or three dimensions [1, height, width], one channel.
func (c Contract) InputGeometry() (h, w, ch int, layout Layout, err error) {
	s := c.Input.Shape
	if len(s) == 3 && s[0] == 1 {
		return s[1], s[2], 1, NHWC, nil
	}
	if len(s) == 4 && s[0] == 1 {
		if s[3] == 1 || s[3] == 3 {
			return s[1], s[2], s[3], NHWC, nil
		}
		if s[1] == 1 || s[1] == 3 {
			return s[2], s[3], s[1], NCHW, nil
		}
	}
	return 0, 0, 0, "", fmt.Errorf("%w: input shape %v is no single picture; wanted [1,H,W,1|3], [1,1|3,H,W] or [1,H,W]", ErrContract, s)
}

// Classes is the number of scores in the output tensor.
func (c Contract) Classes() int { return c.Output.Elements() }

// Check says whether drover can run such a classifier at all.
func (c Contract) Check() error {
	if _, _, _, _, err := c.InputGeometry(); err != nil {
		return err
	}
	for _, t := range []struct {
		side string
		spec TensorSpec
	}{{"input", c.Input}, {"output", c.Output}} {
		if t.spec.DType.Size() == 0 {
			return fmt.Errorf("%w: %s element type %q; drover runs uint8, int8 and float32", ErrContract, t.side, t.spec.DType)
		}
		if t.spec.Elements() == 0 || t.spec.Bytes() > MaxTensorBytes {
			return fmt.Errorf("%w: %s shape %v is empty or too large", ErrContract, t.side, t.spec.Shape)
		}
		q := t.spec.Quant
		if len(q.Scales) != len(q.ZeroPoints) {
			return fmt.Errorf("%w: %s has %d scales and %d zero points", ErrContract, t.side, len(q.Scales), len(q.ZeroPoints))
		}
		if len(q.Scales) > 1 {
			if q.Axis < 0 || q.Axis >= len(t.spec.Shape) || t.spec.Shape[q.Axis] != len(q.Scales) {
				return fmt.Errorf("%w: %s has %d scales, which do not fit dimension %d of %v", ErrContract, t.side, len(q.Scales), q.Axis, t.spec.Shape)
			}
		}
		if t.spec.DType != Float32 && len(q.Scales) == 0 {
			return fmt.Errorf("%w: %s is %s without quantization parameters", ErrContract, t.side, t.spec.DType)
		}
		for i, s := range q.Scales {
			if !(s > 0) || math.IsInf(float64(s), 0) {
				return fmt.Errorf("%w: %s scale %d is %v, wanted a positive number", ErrContract, t.side, i, s)
			}
		}
	}
	if n := c.Classes(); n > MaxClasses {
		return fmt.Errorf("%w: %d classes, allowed %d", ErrContract, n, MaxClasses)
	}
	return nil
}

// Diff names the first difference that would make a model built for c misread
// by somebody who expects want; nil if there is none. Names do not matter.
func (c Contract) Diff(want Contract) error {
	for _, t := range []struct {
		side      string
		got, want TensorSpec
	}{{"input", c.Input, want.Input}, {"output", c.Output, want.Output}} {
		switch {
		case t.got.DType != t.want.DType:
			return fmt.Errorf("%w: %s is %s, expected %s", ErrContract, t.side, t.got.DType, t.want.DType)
		case !slices.Equal(t.got.Shape, t.want.Shape):
			return fmt.Errorf("%w: %s shape is %v, expected %v", ErrContract, t.side, t.got.Shape, t.want.Shape)
		case t.got.Quant.Axis != t.want.Quant.Axis && len(t.want.Quant.Scales) > 1,
			!slices.Equal(t.got.Quant.Scales, t.want.Quant.Scales),
			!slices.Equal(t.got.Quant.ZeroPoints, t.want.Quant.ZeroPoints):
			return fmt.Errorf("%w: %s quantization is %v, expected %v", ErrContract, t.side, t.got.Quant, t.want.Quant)
		}
	}
	return nil
}
