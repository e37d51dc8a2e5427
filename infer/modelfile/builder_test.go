package modelfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
	"github.com/droverhq/drover/infer/tflite"
)

func perTensor(scale float32, zero int32) infer.Quant {
	return infer.Quant{Scales: []float32{scale}, ZeroPoints: []int32{zero}}
}

func int32s(v ...int32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, uint32(x))
	}
	return b
}

// everything is a float model with an int8 inside: two outputs, the first the
// mean of the 4 × 4 picture, the second its negative, by a chain of all
// operators but Softmax and MaxPool2D.
func everything() *modelfile.Builder {
	b := modelfile.NewBuilder("everything")
	act := func(name string, q infer.Quant, shape ...int) int {
		return b.Tensor(modelfile.TensorDef{Name: name, Shape: shape, Type: modelfile.Int8, Quant: q})
	}
	const s = 1.0 / 64
	in := b.Tensor(modelfile.TensorDef{Name: "in", Shape: []int{1, 4, 4, 1}, Type: modelfile.Float32})
	q := act("q", perTensor(s, 0), 1, 4, 4, 1)
	dwW := b.Tensor(modelfile.TensorDef{Name: "dw/w", Shape: []int{1, 1, 1, 2}, Type: modelfile.Int8,
		Quant: infer.Quant{Scales: []float32{1.0 / 127, 1.0 / 127}, ZeroPoints: []int32{0, 0}, Axis: 3}, Data: []byte{127, 0x81}})
	dwB := b.Tensor(modelfile.TensorDef{Name: "dw/b", Shape: []int{2}, Type: modelfile.Int32,
		Quant: infer.Quant{Scales: []float32{s / 127, s / 127}, ZeroPoints: []int32{0, 0}}, Data: int32s(0, 0)})
	dw := act("dw", perTensor(s, 0), 1, 4, 4, 2)
	sum := act("sum", perTensor(2*s, 0), 1, 4, 4, 2)
	avg := act("avg", perTensor(2*s, 0), 1, 2, 2, 2)
	axes := b.Tensor(modelfile.TensorDef{Name: "axes", Shape: []int{2}, Type: modelfile.Int32, Data: int32s(1, 2)})
	mean := act("mean", perTensor(2*s, 0), 1, 1, 1, 2)
	fcW := b.Tensor(modelfile.TensorDef{Name: "fc/w", Shape: []int{2, 2}, Type: modelfile.Int8, Quant: perTensor(0.5/127, 0), Data: []byte{127, 0, 0, 127}})
	fcB := b.Tensor(modelfile.TensorDef{Name: "fc/b", Shape: []int{2}, Type: modelfile.Int32, Quant: perTensor(2*s*0.5/127, 0), Data: int32s(0, 0)})
	fc := act("fc", perTensor(s, 0), 1, 2)
	shape := b.Tensor(modelfile.TensorDef{Name: "shape", Shape: []int{4}, Type: modelfile.Int32, Data: int32s(1, 1, 1, 2)})
	reshaped := act("reshaped", perTensor(s, 0), 1, 1, 1, 2)
	cW := b.Tensor(modelfile.TensorDef{Name: "c/w", Shape: []int{2, 1, 1, 2}, Type: modelfile.Int8,
		Quant: infer.Quant{Scales: []float32{1.0 / 127, 1.0 / 127}, ZeroPoints: []int32{0, 0}}, Data: []byte{127, 0, 0, 127}})
	cB := b.Tensor(modelfile.TensorDef{Name: "c/b", Shape: []int{2}, Type: modelfile.Int32,
		Quant: infer.Quant{Scales: []float32{s / 127, s / 127}, ZeroPoints: []int32{0, 0}}, Data: int32s(0, 0)})
	conv := act("conv", perTensor(s, 0), 1, 1, 1, 2)
	out := b.Tensor(modelfile.TensorDef{Name: "out", Shape: []int{1, 1, 1, 2}, Type: modelfile.Float32})

	b.Operator(modelfile.Quantize, nil, []int{in}, []int{q})
	b.Operator(modelfile.DepthwiseConv2D, modelfile.DepthwiseConv2DOptions{Padding: modelfile.Same, StrideH: 1, StrideW: 1, Multiplier: 2}, []int{q, dwW, dwB}, []int{dw})
	b.Operator(modelfile.Add, modelfile.AddOptions{}, []int{dw, dw}, []int{sum})
	b.Operator(modelfile.AveragePool2D, modelfile.Pool2DOptions{Padding: modelfile.Valid, StrideH: 2, StrideW: 2, FilterH: 2, FilterW: 2}, []int{sum}, []int{avg})
	b.Operator(modelfile.Mean, modelfile.ReducerOptions{KeepDims: true}, []int{avg, axes}, []int{mean})
	b.Operator(modelfile.FullyConnected, modelfile.FullyConnectedOptions{}, []int{mean, fcW, fcB}, []int{fc})
	b.Operator(modelfile.Reshape, modelfile.ReshapeOptions{Shape: []int{1, 1, 1, 2}}, []int{fc, shape}, []int{reshaped})
	b.Operator(modelfile.Conv2D, modelfile.Conv2DOptions{Padding: modelfile.Valid, StrideH: 1, StrideW: 1}, []int{reshaped, cW, cB}, []int{conv})
	b.Operator(modelfile.Dequantize, nil, []int{conv}, []int{out})
	b.IO([]int{in}, []int{out})
	b.Metadata(modelfile.Metadata{Name: "everything", Description: "of a test", Mean: []float32{127.5}, Std: []float32{64}, Gray: true, Labels: []string{"plus", "minus é"}})
	return b
}

// aliased is a model whose 256 subgraphs are one subgraph, whose 60,000 tensors
// are one tensor.
func aliased() []byte {
	b := flatbuffers.NewBuilder(1 << 16)
	vector := func(n int, t flatbuffers.UOffsetT) flatbuffers.UOffsetT {
		b.StartVector(4, n, 4)
		for range n {
			b.PrependUOffsetT(t)
		}
		return b.EndVector(n)
	}
	empty := func() flatbuffers.UOffsetT { b.StartObject(0); return b.EndObject() }
	tensors, operators := vector(60000, empty()), vector(1, empty())
	b.StartObject(5)
	b.PrependUOffsetTSlot(0, tensors, 0)
	b.PrependUOffsetTSlot(3, operators, 0)
	graphs := vector(256, b.EndObject())
	one := vector(1, empty())
	b.StartObject(5)
	b.PrependUint32Slot(0, 3, 0)
	b.PrependUOffsetTSlot(1, one, 0)
	b.PrependUOffsetTSlot(2, graphs, 0)
	b.PrependUOffsetTSlot(4, one, 0)
	b.FinishWithFileIdentifier(b.EndObject(), []byte(modelfile.Identifier))
	return b.FinishedBytes()
}

func TestBuilderWritesWhatParseReads(t *testing.T) {
	file := small(t)
	if again := small(t); !bytes.Equal(file, again) {
		t.Error("the same calls gave other bytes")
	}
	m, err := modelfile.Parse(file)
	if err != nil {
		t.Fatal(err)
	}
	if m.Description != "everything" || len(m.Operators) != 9 || m.Subgraphs != 1 {
		t.Errorf("description %q, %d operators, %d subgraphs", m.Description, len(m.Operators), m.Subgraphs)
	}
	versions := map[string]int{"QUANTIZE": 1, "DEPTHWISE_CONV_2D": 3, "ADD": 2, "AVERAGE_POOL_2D": 2, "MEAN": 2,
		"FULLY_CONNECTED": 4, "RESHAPE": 1, "CONV_2D": 3, "DEQUANTIZE": 2}
	for _, c := range m.Codes {
		if versions[c.Name()] != c.Version {
			t.Errorf("%s has version %d, wanted %d", c.Name(), c.Version, versions[c.Name()])
		}
	}
	if len(m.Buffers[0].Data) != 0 {
		t.Error("buffer 0 is not empty")
	}
	for i, x := range m.Buffers[1:] {
		if x.Offset%16 != 0 {
			t.Errorf("buffer %d stands at %d", i+1, x.Offset)
		}
	}
	if q := m.Tensors[2].Quant; q.Axis != 3 || !slices.Equal(q.Scales, []float32{1.0 / 127, 1.0 / 127}) || !slices.Equal(q.ZeroPoints, []int64{0, 0}) {
		t.Errorf("quantization %+v", q)
	}
	labels, err := m.Labels()
	if err != nil || !slices.Equal(labels, []string{"plus", "minus é"}) {
		t.Errorf("labels %q, %v", labels, err)
	}
	mean, std, err := m.Normalization()
	if err != nil || !slices.Equal(mean, []float32{127.5}) || !slices.Equal(std, []float32{64}) {
		t.Errorf("mean %v, std %v, %v", mean, std, err)
	}
}

func TestRuntimeRunsWhatBuilderWrites(t *testing.T) {
	for _, delegate := range []tflite.Delegate{tflite.Builtin, tflite.XNNPACK} {
		it, err := tflite.Open(small(t), tflite.Options{Delegate: delegate})
		if errors.Is(err, tflite.ErrUnavailable) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		want := 0.0
		for i := range 16 {
			x := float64(i%7)/8 - 0.25
			want += x / 16
			binary.LittleEndian.PutUint32(it.Input()[4*i:], math.Float32bits(float32(x)))
		}
		if err := it.Invoke(); err != nil {
			t.Fatal(err)
		}
		for i, w := range []float64{want, -want} {
			got := float64(math.Float32frombits(binary.LittleEndian.Uint32(it.Output()[4*i:])))
			if math.Abs(got-w) > 2.0/64 {
				t.Errorf("%s: output %d is %v, wanted %v within two quanta", delegate, i, got, w)
			}
		}
		it.Close()
	}
}

func TestBuilderRefuses(t *testing.T) {
	picture := modelfile.TensorDef{Name: "x", Shape: []int{1, 2, 2, 1}, Type: modelfile.Uint8}
	for name, change := range map[string]func(b *modelfile.Builder){
		"no inputs":          func(b *modelfile.Builder) { b.IO(nil, []int{0}) },
		"unknown output":     func(b *modelfile.Builder) { b.IO([]int{0}, []int{7}) },
		"data of wrong size": func(b *modelfile.Builder) { d := picture; d.Data = []byte{1, 2, 3}; b.Tensor(d) },
		"empty dimension":    func(b *modelfile.Builder) { d := picture; d.Shape = []int{1, 0}; b.Tensor(d) },
		"scales without zero points": func(b *modelfile.Builder) {
			d := picture
			d.Quant.Scales = []float32{1}
			b.Tensor(d)
		},
		"scales along no dimension": func(b *modelfile.Builder) {
			d := picture
			d.Quant = infer.Quant{Scales: []float32{1, 1}, ZeroPoints: []int32{0, 0}, Axis: 4}
			b.Tensor(d)
		},
		"label of two lines": func(b *modelfile.Builder) { b.Metadata(modelfile.Metadata{Labels: []string{"a\nb"}}) },
		"huge label": func(b *modelfile.Builder) {
			b.Metadata(modelfile.Metadata{Labels: []string{strings.Repeat("x", infer.MaxLabelBytes+1)}})
		},
		"mean without std": func(b *modelfile.Builder) { b.Metadata(modelfile.Metadata{Mean: []float32{1}}) },
		"stride 0": func(b *modelfile.Builder) {
			b.Operator(modelfile.MaxPool2D, modelfile.Pool2DOptions{StrideW: 1, FilterH: 2, FilterW: 2}, []int{0}, []int{0})
		},
		"operator on a tensor that is not there": func(b *modelfile.Builder) {
			b.Operator(modelfile.Softmax, modelfile.SoftmaxOptions{Beta: 1}, []int{0}, []int{9})
		},
	} {
		b := modelfile.NewBuilder("")
		b.Tensor(picture)
		b.IO([]int{0}, []int{0})
		change(b)
		if _, err := b.Bytes(); !errors.Is(err, modelfile.ErrBuild) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestOpNames(t *testing.T) {
	for op, want := range map[modelfile.Op]string{modelfile.Add: "ADD", modelfile.Softmax: "SOFTMAX", modelfile.Custom: "CUSTOM",
		modelfile.Mean: "MEAN", modelfile.Quantize: "QUANTIZE", 127: "PLACEHOLDER_FOR_GREATER_OP_CODES", 150: "GELU", 151: "OP_151", -1: "OP_-1"} {
		if got := op.String(); got != want {
			t.Errorf("operator %d is %s, wanted %s", int(op), got, want)
		}
	}
}
