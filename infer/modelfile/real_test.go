package modelfile_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

const models = "../../../shared/data/models"

func readModel(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(models, name))
	if err != nil {
		t.Skipf("real models are not here: %v", err)
	}
	return b
}

func TestParseReadsRealModels(t *testing.T) {
	u8 := func(h int) infer.TensorSpec {
		return infer.TensorSpec{Shape: []int{1, h, h, 3}, DType: infer.Uint8, Quant: infer.Quant{Scales: []float32{0.0078125}, ZeroPoints: []int32{128}}}
	}
	for _, c := range []struct {
		file      string
		input     infer.TensorSpec
		outputs   int
		operators int
		custom    []string
		labels    int
		mean      []float32
	}{
		{"mobilenet_v1_0.25_128_quant.tflite", u8(128), 1001, 31, nil, 1001, []float32{127.5}},
		{"mobilenet_v1_0.25_128_quant_edgetpu.tflite", u8(128), 1001, 1, []string{"edgetpu-custom-op"}, 1001, []float32{127.5}},
		{"mobilenet_v1_0.75_192_quant.tflite", u8(192), 1001, 31, nil, 1001, []float32{127.5}},
		{"mobilenet_v1_0.75_192_quant_edgetpu.tflite", u8(192), 1001, 1, []string{"edgetpu-custom-op"}, 1001, []float32{127.5}},
		{"mobilenet_v1_1.0_224_quant_embedding_extractor.tflite", u8(224), 1024, 28, nil, 0, nil},
		{"mobilenet_v2_1.0_224_quant.tflite", u8(224), 1001, 66, nil, 1001, []float32{127.5}},
		{"mobilenet_v2_1.0_224_quant_edgetpu.tflite", u8(224), 1001, 1, []string{"edgetpu-custom-op"}, 0, nil},
		{"tf2_mobilenet_v2_1.0_224_ptq.tflite", infer.TensorSpec{Shape: []int{1, 224, 224, 3}, DType: infer.Uint8,
			Quant: infer.Quant{Scales: []float32{0.007843138}, ZeroPoints: []int32{127}}}, 1001, 68, nil, 1001, []float32{127.5}},
		{"pretrainedResnet.tflite", infer.TensorSpec{Shape: []int{1, 32, 32, 3}, DType: infer.Float32}, 10, 16, nil, 0, nil},
		{"pretrainedResnet_quant.tflite", infer.TensorSpec{Shape: []int{1, 32, 32, 3}, DType: infer.Int8,
			Quant: infer.Quant{Scales: []float32{1}, ZeroPoints: []int32{-128}}}, 10, 16, nil, 0, nil},
		{"pretrainedResnet_large_int8.tflite", infer.TensorSpec{Shape: []int{1, 32, 32, 3}, DType: infer.Int8,
			Quant: infer.Quant{Scales: []float32{1}, ZeroPoints: []int32{-128}}}, 10, 16, nil, 0, nil},
		{"vww_96_int8.tflite", infer.TensorSpec{Shape: []int{1, 96, 96, 3}, DType: infer.Int8,
			Quant: infer.Quant{Scales: []float32{0.003921569}, ZeroPoints: []int32{-128}}}, 2, 31, nil, 0, nil},
		{"person_detect.tflite", infer.TensorSpec{Shape: []int{1, 96, 96, 1}, DType: infer.Int8,
			Quant: infer.Quant{Scales: []float32{0.007843138}, ZeroPoints: []int32{-1}}}, 2, 31, nil, 0, nil},
	} {
		t.Run(c.file, func(t *testing.T) {
			m, err := modelfile.Parse(readModel(t, c.file))
			if err != nil {
				t.Fatal(err)
			}
			contract, err := m.Contract()
			if err != nil {
				t.Fatal(err)
			}
			if err := contract.Diff(infer.Contract{Input: c.input, Output: contract.Output}); err != nil {
				t.Error(err)
			}
			if contract.Classes() != c.outputs || len(m.Operators) != c.operators || !slices.Equal(m.CustomOps(), c.custom) {
				t.Errorf("%d outputs, %d operators, custom %q; wanted %d, %d, %q",
					contract.Classes(), len(m.Operators), m.CustomOps(), c.outputs, c.operators, c.custom)
			}
			labels, err := m.Labels()
			if err != nil || len(labels) != c.labels {
				t.Errorf("%d labels (%v), wanted %d", len(labels), err, c.labels)
			}
			if c.labels == 1001 && !strings.HasPrefix(labels[1], "tench") {
				t.Errorf("label 1 is %q", labels[1])
			}
			mean, std, err := m.Normalization()
			if err != nil || !slices.Equal(mean, c.mean) || len(std) != len(mean) {
				t.Errorf("mean %v, std %v (%v), wanted %v", mean, std, err, c.mean)
			}
		})
	}
}

// It is a legal FlatBuffer, only no classifier.
func TestParseAcceptsLegalFilesThatAreNoClassifier(t *testing.T) {
	m, err := modelfile.Parse(readModel(t, "model_invoking_error.tflite"))
	if err != nil {
		t.Fatal(err)
	}
	if got := m.CustomOps(); !slices.Equal(got, []string{"fake-op-double"}) {
		t.Errorf("custom operators %q", got)
	}
	if _, err := m.Contract(); !errors.Is(err, infer.ErrContract) {
		t.Errorf("contract: %v", err)
	}
}

func TestQuantizationPerChannelIsRead(t *testing.T) {
	m, err := modelfile.Parse(readModel(t, "vww_96_int8.tflite"))
	if err != nil {
		t.Fatal(err)
	}
	var conv, depthwise int
	for _, o := range m.Operators {
		w := o.Inputs
		switch m.Codes[o.Code].Builtin {
		case modelfile.Conv2D:
			conv++
			if q := m.Tensors[w[1]].Quant; len(q.Scales) != m.Tensors[w[1]].Shape[0] || q.Axis != 0 {
				t.Errorf("convolution %d: %d scales along %d", conv, len(q.Scales), q.Axis)
			}
		case modelfile.DepthwiseConv2D:
			depthwise++
			if q := m.Tensors[w[1]].Quant; len(q.Scales) != m.Tensors[w[1]].Shape[3] || q.Axis != 3 {
				t.Errorf("depthwise %d: %d scales along %d", depthwise, len(q.Scales), q.Axis)
			}
		}
	}
	if conv == 0 || depthwise == 0 {
		t.Fatalf("%d convolutions and %d depthwise ones found", conv, depthwise)
	}
}
