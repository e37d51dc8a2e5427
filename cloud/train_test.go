package cloud

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/cloud/evaluate"
	"github.com/droverhq/drover/cloud/train"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/test/tinymodel"
)

// shades makes a set of n gray pictures per class: dark and light. from shifts
// their content, so that two sets share those that overlap.
func shades(t *testing.T, n, from int) *dataset.Set {
	t.Helper()
	dir := t.TempDir()
	for _, class := range []string{"dark", "light"} {
		if err := os.MkdirAll(filepath.Join(dir, class), 0o755); err != nil {
			t.Fatal(err)
		}
		for i := from; i < from+n; i++ {
			img := image.NewGray(image.Rect(0, 0, 12, 12))
			for p := range img.Pix {
				v := (p*3+i)%50 + 10
				if class == "light" {
					v += 180
				}
				img.SetGray(p%12, p/12, color.Gray{Y: uint8(v)})
			}
			img.Pix[i%144] = uint8(i) // no two alike
			f, err := os.Create(filepath.Join(dir, class, fmt.Sprintf("%03d.png", i)))
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
				t.Fatal(err)
			}
		}
	}
	set, err := dataset.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTrainThroughTheRuntime(t *testing.T) {
	o := runtime(t)
	spec, err := train.Preset("quick")
	if err != nil {
		t.Fatal(err)
	}
	spec.Epochs = 15
	set, test := shades(t, 60, 0), shades(t, 30, 40) // 20 of each class are in both
	prepared, trained := 0, 0
	a, err := Train(t.Context(), TrainOptions{
		Set: set, Test: test, Spec: spec, Host: o,
		OnPrepare: func(done, total int) { prepared = total }, OnTrain: func(p train.Progress) { trained = p.PicturesSeen },
	})
	if err != nil {
		t.Fatal(err)
	}
	if a.Lineage.Pictures != 80 || prepared != 80 || trained != 80*15 {
		t.Errorf("%d pictures, %d prepared, %d seen; wanted 80, for 40 of 120 are in the test set", a.Lineage.Pictures, prepared, trained)
	}
	if got := a.Spec.Contract.Input.Shape; got[1] != 12 || got[3] != 1 || a.Spec.Preprocess.Color != infer.Gray {
		t.Errorf("input %v, %s", got, a.Spec.Preprocess.Color)
	}
	done := 0
	r, err := EvaluateModel(t.Context(), o, a.TFLite, &a.Spec, test, func(d, _ int) { done = d })
	if err != nil {
		t.Fatal(err)
	}
	if r.N != 60 || done != 60 || r.Top1 < 0.95 {
		t.Errorf("%d pictures (%d told), top-1 %v", r.N, done, r.Top1)
	}
	if s := Summary(r); s["top1"] != r.Top1 || s["n"] != 60 {
		t.Errorf("summary %v", s)
	}
}

func TestTrainRefusesBeforeTheWork(t *testing.T) {
	set := shades(t, 4, 0)
	spec, err := train.Preset("quick")
	if err != nil {
		t.Fatal(err)
	}
	tiny := spec
	tiny.Height, tiny.Width = 2, 2
	for name, c := range map[string]struct {
		o    TrainOptions
		want error
	}{
		"other classes in the test":  {TrainOptions{Set: set, Test: shades(t, 4, 10), Labels: []string{"cat", "dog"}, Spec: spec}, evaluate.ErrClasses},
		"labels in another order":    {TrainOptions{Set: set, Labels: []string{"light", "dark"}, Spec: spec}, evaluate.ErrClasses},
		"all pictures are judged by": {TrainOptions{Set: set, Test: shades(t, 4, 0), Spec: spec}, train.ErrData},
		"a network that cannot be":   {TrainOptions{Set: set, Spec: tiny}, train.ErrSpec},
	} {
		c.o.Host.Program = "/there/is/none" // nothing is started
		if _, err := Train(t.Context(), c.o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, wanted %v", name, err, c.want)
		}
	}
}

func TestHoldOut(t *testing.T) {
	set := shades(t, 50, 0)
	fit, test, err := HoldOut(t.Context(), set, 0.2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if fit.Len() != 80 || test.Len() != 20 {
		t.Errorf("%d and %d pictures, wanted 80 and 20", fit.Len(), test.Len())
	}
	seen := map[string]bool{}
	for i := range fit.Len() {
		seen[fit.Sample(i).Group] = true
	}
	for i := range test.Len() {
		if seen[test.Sample(i).Group] {
			t.Errorf("%s is on both sides", test.Sample(i).ID)
		}
	}
	if _, _, err := HoldOut(t.Context(), shades(t, 1, 0), 0.2, 1); !errors.Is(err, dataset.ErrEmpty) {
		t.Errorf("one picture per class: %v", err)
	}
}

// TestDescribeAsksTheRuntime: a model that lacks labels and is refused anyway is
// refused; one that only lacks labels is told so.
func TestDescribeAsksTheRuntime(t *testing.T) {
	o := runtime(t)
	model, _ := tinymodel.Build(tinymodel.Options{})
	if _, err := Describe(t.Context(), o, model, SpecHints{}); !errors.Is(err, ErrSpec) {
		t.Errorf("no labels: %v", err)
	}
	if s, err := Describe(t.Context(), o, model, SpecHints{Labels: []string{"dark", "bright"}}); err != nil || s.Preprocess.Mean[0] != 0 {
		t.Errorf("%+v, %v", s, err)
	}
	edge, err := os.ReadFile("../../shared/data/models/mobilenet_v1_0.25_128_quant_edgetpu.tflite")
	if err != nil {
		t.Skipf("the shared test data is not here: %v", err)
	}
	_, err = Describe(t.Context(), o, edge, SpecHints{Labels: []string{"x"}})
	if _, refused := errors.AsType[*host.Refusal](err); !refused {
		t.Errorf("a model for an Edge TPU: %v", err)
	}
}
