package cloud

import (
	"errors"
	"fmt"
	"math"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

// ErrSpec says that a model does not tell how to be fed or read, and nobody
// else did.
var ErrSpec = errors.New("cloud: how to run the model is not known")

// SpecHints are what the person who brings a model knows of it. Nil and empty
// fields are taken from the model's metadata, or guessed where that is safe.
type SpecHints struct {
	Labels        []string
	Mean, Std     []float32 // of pixels in 0…255
	Color         infer.Color
	Fit           infer.Fit
	CropFraction  float64
	Interpolation infer.Interpolation
	TopK          int
	Threshold     float64
}

// DescribeModel reads a .tflite and says how to run it: contract and labels out
// of the file, preprocessing out of its metadata, the hints, or its
// quantization parameters. It does not run the model.
func DescribeModel(model []byte, h SpecHints) (infer.Spec, error) {
	m, err := modelfile.Parse(model)
	if err != nil {
		return infer.Spec{}, err
	}
	c, err := m.Contract()
	if err != nil {
		return infer.Spec{}, err
	}
	s := infer.Spec{Contract: c, Labels: h.Labels, Postprocess: infer.DefaultPostprocess()}
	if len(s.Labels) == 0 {
		if s.Labels, err = m.Labels(); err != nil {
			return s, err
		}
	}
	if len(s.Labels) == 0 {
		return s, fmt.Errorf("%w: the file holds no labels; give a file with one label a line (--labels), %d lines", ErrSpec, c.Classes())
	}
	if s.Preprocess, err = preprocess(m, c, h); err != nil {
		return s, err
	}
	s.Postprocess.TopK = min(orDefault(h.TopK, s.Postprocess.TopK), c.Classes())
	s.Postprocess.Threshold = h.Threshold
	return s, s.Check()
}

// largeInput is the side from which on a model is taken for one that was
// trained on photographs with the usual margin cut off.
const largeInput = 96

func preprocess(m *modelfile.Model, c infer.Contract, h SpecHints) (infer.Preprocess, error) {
	height, width, channels, _, err := c.InputGeometry()
	if err != nil {
		return infer.Preprocess{}, err
	}
	p := infer.Preprocess{
		Color: infer.RGB, Fit: orDefault(h.Fit, infer.Crop), CropFraction: h.CropFraction,
		Interpolation: orDefault(h.Interpolation, infer.Antialias), Mean: h.Mean, Std: h.Std,
	}
	if channels == 1 {
		p.Color = infer.Gray
	}
	p.Color = orDefault(h.Color, p.Color)
	if p.CropFraction == 0 {
		p.CropFraction = 1
		if min(height, width) >= largeInput {
			p.CropFraction = 0.875
		}
	}
	if p.Mean != nil || p.Std != nil {
		if p.Mean == nil {
			p.Mean = []float32{0}
		}
		if p.Std == nil {
			p.Std = []float32{1}
		}
		return p, nil
	}
	if p.Mean, p.Std, err = m.Normalization(); err != nil || len(p.Mean) > 0 {
		return p, err
	}
	p.Mean, p.Std, err = normalization(c.Input)
	return p, err
}

// normalization concludes from the range that a quantized input can hold what
// pixels were scaled to: nobody quantizes far beyond the range in use.
func normalization(t infer.TensorSpec) (mean, std []float32, err error) {
	if t.DType == infer.Float32 || len(t.Quant.Scales) != 1 {
		return nil, nil, fmt.Errorf("%w: a %s input without metadata; say what pixels are scaled to (--mean and --std, in pixel values: 127.5 and 127.5 for [-1, 1], 0 and 255 for [0, 1], 0 and 1 for raw pixels)", ErrSpec, t.DType)
	}
	first := 0.0
	if t.DType == infer.Int8 {
		first = -128
	}
	scale, zero := float64(t.Quant.Scales[0]), float64(t.Quant.ZeroPoints[0])
	low, high := scale*(first-zero), scale*(first+255-zero)
	for _, k := range []struct {
		low, high float64
		mean, std float32
	}{{-1, 1, 127.5, 127.5}, {0, 1, 0, 255}, {0, 255, 0, 1}, {-128, 127, 128, 1}} {
		tolerance := 0.02 * (k.high - k.low)
		if math.Abs(low-k.low) <= tolerance && math.Abs(high-k.high) <= tolerance {
			return []float32{k.mean}, []float32{k.std}, nil
		}
	}
	return nil, nil, fmt.Errorf("%w: its input holds %.3g to %.3g, which is no usual scaling of pixels; say which (--mean and --std, in pixel values)", ErrSpec, low, high)
}
