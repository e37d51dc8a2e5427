package infer

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func specOfOutput(out TensorSpec, post Postprocess) *Spec {
	s := spec()
	s.Contract.Output, s.Postprocess = out, post
	return &s
}

func floats(v ...float32) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
	}
	return b
}

func TestScores(t *testing.T) {
	softmax := Postprocess{Activation: Softmax, Temperature: 1, TopK: 1}
	warm := Postprocess{Activation: Softmax, Temperature: 2, TopK: 1}
	none := DefaultPostprocess()
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	for _, tc := range []struct {
		name string
		out  TensorSpec
		post Postprocess
		raw  []byte
		want []float32
	}{
		{"uint8", TensorSpec{Shape: []int{1, 3}, DType: Uint8, Quant: quant(1./256, 0)}, none, []byte{0, 64, 255}, []float32{0, 0.25, 255. / 256}},
		{"int8", TensorSpec{Shape: []int{1, 3}, DType: Int8, Quant: quant(1./256, -128)}, none, []byte{0x80, 0, 0x7f}, []float32{0, 0.5, 255. / 256}},
		{"float32", TensorSpec{Shape: []int{1, 3}, DType: Float32}, none, floats(0.25, 0, 0.75), []float32{0.25, 0, 0.75}},
		{"non-finite becomes 0", TensorSpec{Shape: []int{1, 4}, DType: Float32}, none, floats(nan, inf, -inf, 0.5), []float32{0, 0, 0, 0.5}},
		{"per channel, last axis", TensorSpec{Shape: []int{1, 3}, DType: Int8, Quant: Quant{Scales: []float32{1, 0.5, 0.25}, ZeroPoints: []int32{0, 2, -4}, Axis: 1}}, none,
			[]byte{4, 4, 4}, []float32{4, 1, 2}},
		{"per channel, before other axes", TensorSpec{Shape: []int{1, 2, 2}, DType: Uint8, Quant: Quant{Scales: []float32{1, 10}, ZeroPoints: []int32{0, 1}, Axis: 1}}, none,
			[]byte{3, 4, 3, 4}, []float32{3, 4, 20, 30}},
		// e⁰ : e^ln2 : e^ln4 = 1 : 2 : 4
		{"softmax", TensorSpec{Shape: []int{1, 3}, DType: Float32}, softmax, floats(0, math.Ln2, 2*math.Ln2), []float32{1. / 7, 2. / 7, 4. / 7}},
		{"softmax of equals", TensorSpec{Shape: []int{1, 4}, DType: Float32}, softmax, floats(9, 9, 9, 9), []float32{0.25, 0.25, 0.25, 0.25}},
		{"temperature 2 halves logits", TensorSpec{Shape: []int{1, 2}, DType: Float32}, warm, floats(0, 2*math.Ln2), []float32{1. / 3, 2. / 3}},
		{"softmax of large logits", TensorSpec{Shape: []int{1, 2}, DType: Float32}, softmax, floats(1e30, 0), []float32{1, 0}},
		{"softmax of the largest logits", TensorSpec{Shape: []int{1, 2}, DType: Float32}, softmax, floats(-3e38, 3e38), []float32{0, 1}},
		{"temperature near 0 takes the best", TensorSpec{Shape: []int{1, 2}, DType: Float32}, Postprocess{Activation: Softmax, Temperature: 1e-300, TopK: 1}, floats(1, 2), []float32{0, 1}},
		{"overflow becomes 0", TensorSpec{Shape: []int{1, 2}, DType: Uint8, Quant: quant(math.MaxFloat32, 0)}, none, []byte{1, 255}, []float32{math.MaxFloat32, 0}},
		{"softmax of quantized logits", TensorSpec{Shape: []int{1, 2}, DType: Int8, Quant: quant(math.Ln2, 10)}, softmax, []byte{10, 12}, []float32{0.2, 0.8}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := specOfOutput(tc.out, tc.post)
			buf := make([]float32, len(tc.want)+2)
			got, err := s.Scores(tc.raw, buf)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(tc.want, got, cmpopts.EquateApprox(0, 1e-6)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if &got[0] != &buf[0] {
				t.Error("the scores are not in the caller's buffer")
			}
			if n := testing.AllocsPerRun(10, func() { s.Scores(tc.raw, buf) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}

func TestScoresRefusesWrongSizes(t *testing.T) {
	s := specOfOutput(TensorSpec{Shape: []int{1, 3}, DType: Float32}, DefaultPostprocess())
	for _, tc := range []struct{ raw, dst int }{{11, 3}, {13, 3}, {0, 3}, {12, 2}} {
		if _, err := s.Scores(make([]byte, tc.raw), make([]float32, tc.dst)); !errors.Is(err, ErrContract) {
			t.Errorf("%d bytes into %d scores: %v", tc.raw, tc.dst, err)
		}
	}
}

func TestTopK(t *testing.T) {
	s := spec()
	for _, tc := range []struct {
		name   string
		scores []float32
		k      int
		want   []Score
	}{
		{"best first", []float32{0.2, 0.5, 0.3}, 3, []Score{{1, "dog", 0.5}, {2, "owl", 0.3}, {0, "cat", 0.2}}},
		{"only two", []float32{0.2, 0.5, 0.3}, 2, []Score{{1, "dog", 0.5}, {2, "owl", 0.3}}},
		{"rising", []float32{0.1, 0.2, 0.7}, 1, []Score{{2, "owl", 0.7}}},
		{"ties go to the lower class", []float32{0.4, 0.2, 0.4}, 3, []Score{{0, "cat", 0.4}, {2, "owl", 0.4}, {1, "dog", 0.2}}},
		{"tie at the edge", []float32{0.2, 0.4, 0.2}, 2, []Score{{1, "dog", 0.4}, {0, "cat", 0.2}}},
		{"all equal", []float32{0, 0, 0}, 2, []Score{{0, "cat", 0}, {1, "dog", 0}}},
		{"more than there are", []float32{0.6, 0.4}, 5, []Score{{0, "cat", 0.6}, {1, "dog", 0.4}}},
		{"without a label", []float32{0, 0, 0, 1}, 1, []Score{{3, "", 1}}},
		{"none wanted", []float32{1, 2, 3}, 0, []Score{}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dst := make([]Score, 0, tc.k)
			if d := cmp.Diff(tc.want, s.TopK(tc.scores, dst)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
			if n := testing.AllocsPerRun(10, func() { s.TopK(tc.scores, dst) }); n != 0 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
