//go:build cgo

package tflite

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

// No sample model has scales per channel at its input or output, so this one is
// made here: it only reshapes.
func TestPerChannelQuantizationAtInputAndOutput(t *testing.T) {
	in := infer.Quant{Scales: []float32{1, 0.5, 0.25}, ZeroPoints: []int32{-128, 0, 5}, Axis: 3}
	out := infer.Quant{Scales: []float32{0.5, 0.25}, ZeroPoints: []int32{1, 2}, Axis: 1}
	b := modelfile.NewBuilder("per channel")
	x := b.Tensor(modelfile.TensorDef{Name: "x", Shape: []int{1, 2, 1, 3}, Type: modelfile.Int8, Quant: in})
	shape := b.Tensor(modelfile.TensorDef{Name: "shape", Shape: []int{3}, Type: modelfile.Int32, Data: []byte{1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0}})
	y := b.Tensor(modelfile.TensorDef{Name: "y", Shape: []int{1, 2, 3}, Type: modelfile.Int8, Quant: out})
	b.Operator(modelfile.Reshape, nil, []int{x, shape}, []int{y})
	b.IO([]int{x}, []int{y})
	model, err := b.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []Delegate{Builtin, XNNPACK} {
		it, err := Open(model, Options{Delegate: d})
		if err != nil {
			t.Fatalf("%s: %v", d, err)
		}
		defer it.Close()
		want := infer.Contract{
			Input:  infer.TensorSpec{Name: "x", Shape: []int{1, 2, 1, 3}, DType: infer.Int8, Quant: in},
			Output: infer.TensorSpec{Name: "y", Shape: []int{1, 2, 3}, DType: infer.Int8, Quant: out},
		}
		if diff := cmp.Diff(want, it.Contract()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", d, diff)
		}
		copy(it.Input(), "abcdef")
		if err := it.Invoke(); err != nil || !bytes.Equal(it.Output(), []byte("abcdef")) {
			t.Errorf("%s: %q, %v", d, it.Output(), err)
		}
	}
}
