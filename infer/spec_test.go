package infer

import (
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func spec() Spec {
	return Spec{
		Contract:    classifier(),
		Labels:      []string{"cat", "dog", "owl"},
		Preprocess:  Preprocess{Color: RGB, Fit: Crop, CropFraction: 0.875, Interpolation: Antialias, Mean: []float32{127.5}, Std: []float32{127.5}},
		Postprocess: DefaultPostprocess(),
	}
}

func TestSpecCheck(t *testing.T) {
	good := spec()
	if err := good.Check(); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		change func(*Spec)
		words  string // empty: still good
	}{
		{"mean per channel", func(s *Spec) { s.Preprocess.Mean = []float32{1, 2, 3} }, ""},
		{"BGR, letterbox, area", func(s *Spec) {
			s.Preprocess.Color, s.Preprocess.Fit, s.Preprocess.Interpolation = BGR, Letterbox, Area
		}, ""},
		{"gray", func(s *Spec) { s.Contract.Input.Shape, s.Preprocess.Color = []int{1, 4, 6, 1}, Gray }, ""},
		{"labels missing", func(s *Spec) { s.Labels = s.Labels[:2] }, "2 labels for 3 outputs"},
		{"labels too many", func(s *Spec) { s.Labels = append(s.Labels, "x") }, "4 labels for 3 outputs"},
		{"label too long", func(s *Spec) { s.Labels[1] = strings.Repeat("x", MaxLabelBytes+1) }, "label 1 has 257 bytes"},
		{"contract", func(s *Spec) { s.Contract.Input.DType = "" }, "element type"},
		{"colour of a gray input", func(s *Spec) { s.Contract.Input.Shape = []int{1, 4, 6, 1} }, `colour "rgb" for an input of 1 channel`},
		{"gray of a colour input", func(s *Spec) { s.Preprocess.Color = Gray }, `colour "gray" for an input of 3 channels`},
		{"unknown colour", func(s *Spec) { s.Preprocess.Color = "yuv" }, `"yuv"`},
		{"unknown fit", func(s *Spec) { s.Preprocess.Fit = "" }, "unknown fit"},
		{"unknown interpolation", func(s *Spec) { s.Preprocess.Interpolation = "lanczos" }, `"lanczos"`},
		{"crop fraction 0", func(s *Spec) { s.Preprocess.CropFraction = 0 }, "crop fraction 0"},
		{"crop fraction above 1", func(s *Spec) { s.Preprocess.CropFraction = 1.01 }, "crop fraction 1.01"},
		{"crop fraction NaN", func(s *Spec) { s.Preprocess.CropFraction = math.NaN() }, "crop fraction NaN"},
		{"no mean", func(s *Spec) { s.Preprocess.Mean = nil }, "0 mean values"},
		{"two stds", func(s *Spec) { s.Preprocess.Std = []float32{1, 1} }, "2 std values"},
		{"std 0", func(s *Spec) { s.Preprocess.Std = []float32{0} }, "std value 0"},
		{"mean infinite", func(s *Spec) { s.Preprocess.Mean = []float32{float32(math.Inf(-1))} }, "mean value -Inf"},
		{"unknown activation", func(s *Spec) { s.Postprocess.Activation = "sigmoid" }, `"sigmoid"`},
		{"temperature 0", func(s *Spec) { s.Postprocess.Temperature = 0 }, "temperature 0"},
		{"temperature NaN", func(s *Spec) { s.Postprocess.Temperature = math.NaN() }, "temperature NaN"},
		{"temperature infinite", func(s *Spec) { s.Postprocess.Temperature = math.Inf(1) }, "temperature +Inf"},
		{"top 0", func(s *Spec) { s.Postprocess.TopK = 0 }, "top_k 0"},
		{"threshold above 1", func(s *Spec) { s.Postprocess.Threshold = 1.5 }, "threshold 1.5"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := spec()
			tc.change(&s)
			err := s.Check()
			if (tc.words == "") != (err == nil) || err != nil && (!errors.Is(err, ErrContract) || !strings.Contains(err.Error(), tc.words)) {
				t.Errorf("%v, want %q", err, tc.words)
			}
		})
	}
}

func TestSpecSurvivesJSON(t *testing.T) {
	want := spec()
	b, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Spec
	if err := json.Unmarshal(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

// FuzzSpec: what Check accepts can be used without a panic.
func FuzzSpec(f *testing.F) {
	s := spec()
	b, err := json.Marshal(s)
	if err != nil || len(b) < 100 {
		f.Fatalf("no seed: %d bytes, %v", len(b), err)
	}
	f.Add(b, []byte{1, 2, 3})
	f.Add([]byte(strings.Replace(string(b), `"int8"`, `"float32"`, 1)), []byte("\x00\x00\xc0\x7f\x00\x00\x80\x7f\x01\x02\x03\x04"))
	f.Fuzz(func(t *testing.T, text, raw []byte) {
		var s Spec
		if json.Unmarshal(text, &s) != nil || s.Check() != nil {
			return
		}
		scores, err := s.Scores(raw, make([]float32, s.Contract.Classes()))
		if err != nil {
			return
		}
		for _, p := range scores {
			if p != p || p > math.MaxFloat32 || p < -math.MaxFloat32 {
				t.Errorf("score %v", p)
			}
		}
		if top := s.TopK(scores, make([]Score, 0, 5)); len(top) == 0 {
			t.Error("no best class")
		}
	})
}
