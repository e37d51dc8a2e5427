// Package tinymodel makes the smallest honest classifier for tests: it tells
// dark pictures from bright ones. It is a real int8 .tflite that the official
// runtime runs, a few hundred bytes of weights, and its answers are known.
package tinymodel

import (
	"encoding/binary"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

// Side is the height and width of the input, in pixels; it has 3 channels.
const Side = 8

// Labels are the classes.
var labels = []string{"dark", "bright"}

// Options vary the model.
type Options struct {
	Name    string // stands in the file: models of different names have different bytes
	Swapped bool   // answers the opposite
	Padding int    // bytes of ballast, to make the file as large as a test needs
}

// Build returns the model and its spec.
func Build(o Options) ([]byte, infer.Spec) {
	const inputs = Side * Side * 3
	const weightScale = float32(20.0 / (inputs * 255 * 127))
	sign := int8(127)
	if o.Swapped {
		sign = -sign
	}
	weights := make([]byte, 0, 2*inputs)
	for _, q := range []int8{-sign, sign} {
		for range inputs {
			weights = append(weights, byte(q))
		}
	}
	offset := int32(10 / weightScale)
	if o.Swapped {
		offset = -offset
	}
	bias := binary.LittleEndian.AppendUint32(nil, uint32(offset))
	bias = binary.LittleEndian.AppendUint32(bias, uint32(-offset))

	pixel := infer.Quant{Scales: []float32{1}, ZeroPoints: []int32{-128}}
	prob := infer.Quant{Scales: []float32{1.0 / 256}, ZeroPoints: []int32{-128}}
	one := func(scale float32) infer.Quant { return infer.Quant{Scales: []float32{scale}, ZeroPoints: []int32{0}} }
	b := modelfile.NewBuilder("tiny brightness classifier " + o.Name)
	in := b.Tensor(modelfile.TensorDef{Name: "pixels", Shape: []int{1, Side, Side, 3}, Type: modelfile.Int8, Quant: pixel})
	w := b.Tensor(modelfile.TensorDef{Name: "weights", Shape: []int{2, inputs}, Type: modelfile.Int8, Quant: one(weightScale), Data: weights})
	bi := b.Tensor(modelfile.TensorDef{Name: "bias", Shape: []int{2}, Type: modelfile.Int32, Quant: one(weightScale), Data: bias})
	logits := b.Tensor(modelfile.TensorDef{Name: "logits", Shape: []int{1, 2}, Type: modelfile.Int8, Quant: one(10.0 / 127)})
	out := b.Tensor(modelfile.TensorDef{Name: "scores", Shape: []int{1, 2}, Type: modelfile.Int8, Quant: prob})
	if o.Padding > 0 {
		b.Tensor(modelfile.TensorDef{Name: "ballast", Shape: []int{o.Padding}, Type: modelfile.Int8, Quant: one(1), Data: ballast(o)})
	}
	b.Operator(modelfile.FullyConnected, modelfile.FullyConnectedOptions{}, []int{in, w, bi}, []int{logits})
	b.Operator(modelfile.Softmax, modelfile.SoftmaxOptions{Beta: 1}, []int{logits}, []int{out})
	b.IO([]int{in}, []int{out})
	model, err := b.Bytes()
	if err != nil {
		panic("internal error: tinymodel: " + err.Error())
	}
	return model, infer.Spec{
		Contract: infer.Contract{
			Input:  infer.TensorSpec{Name: "pixels", Shape: []int{1, Side, Side, 3}, DType: infer.Int8, Quant: pixel},
			Output: infer.TensorSpec{Name: "scores", Shape: []int{1, 2}, DType: infer.Int8, Quant: prob},
		},
		Labels:      labels,
		Preprocess:  infer.Preprocess{Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear, Mean: []float32{0}, Std: []float32{1}},
		Postprocess: infer.DefaultPostprocess(),
	}
}

// ballast is incompressible, and different for every name.
func ballast(o Options) []byte {
	b := make([]byte, o.Padding)
	x := uint32(2463534242)
	for _, c := range []byte(o.Name) {
		x = x*31 + uint32(c) | 1
	}
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x)
	}
	return b
}

// Frame is a uniform picture of the given brightness.
func Frame(brightness byte) *camera.Frame {
	f := &camera.Frame{Width: Side, Height: Side, Stride: Side * 3, Format: camera.BGR8, Data: make([]byte, Side*Side*3)}
	for i := range f.Data {
		f.Data[i] = brightness
	}
	return f
}

// Golden returns golden inputs with what a model that is not swapped answers:
// scores of 1 saturate at 255/256, scores of 0 are 0.
func Golden() *wire.Golden {
	g := &wire.Golden{V: wire.Version}
	for _, k := range []struct {
		label      string
		brightness byte
		output     []int8
	}{
		{"dark", 0, []int8{127, -128}},
		{"bright", 255, []int8{-128, 127}},
	} {
		f := Frame(k.brightness)
		g.Cases = append(g.Cases, wire.GoldenCase{Width: Side, Height: Side, Format: "bgr8", Pixels: f.Data, Output: []byte{byte(k.output[0]), byte(k.output[1])}, Label: k.label})
	}
	return g
}
