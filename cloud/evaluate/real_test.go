package evaluate

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/test/programs"
)

const (
	root     = "../.."
	testData = root + "/../shared/data"
)

// program finds or builds drover-infer, once.
var program = sync.OnceValues(func() (string, error) {
	dir, _, err := programs.Folder(host.ProgramName)
	return filepath.Join(dir, host.ProgramName), err
})

// pool loads a model of the test data; labels are the lines of a file.
func pool(t *testing.T, model, labels string, p infer.Preprocess) (*host.Pool, *infer.Spec) {
	t.Helper()
	bytes, err := os.ReadFile(filepath.Join(testData, "models", model))
	if err != nil {
		t.Skipf("no test models: %v", err)
	}
	lines, err := os.ReadFile(filepath.Join(testData, "models", labels))
	if err != nil {
		t.Skipf("no test models: %v", err)
	}
	path, err := program()
	if err != nil {
		t.Fatal(err)
	}
	start := func(n int, spec *infer.Spec) *host.Pool {
		pl, err := host.NewPool(t.Context(), n, host.Options{Program: path}, bytes, spec, protocol.Runtime{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := pl.Close(); err != nil {
				t.Error(err)
			}
		})
		return pl
	}
	spec := &infer.Spec{
		Contract: start(1, nil).Loaded().Contract, Labels: strings.Split(strings.TrimSpace(string(lines)), "\n"),
		Preprocess: p, Postprocess: infer.DefaultPostprocess(),
	}
	return start(2, spec), spec
}

// TestBaseline holds the whole way against accuracies that another harness
// measured on the same pictures; another resampler moves them by a point or two.
func TestBaseline(t *testing.T) {
	imagenet := infer.Preprocess{Color: infer.RGB, Fit: infer.Crop, CropFraction: 0.875, Interpolation: infer.Area, Mean: []float32{127.5}, Std: []float32{127.5}}
	cifar := infer.Preprocess{Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear, Mean: []float32{0}, Std: []float32{1}}
	const tolerance = 0.02 + 1e-9
	for _, c := range []struct {
		model      string
		pre        infer.Preprocess
		top1, top5 float64
		slow       bool
	}{
		{"mobilenet_v1_0.25_128_quant.tflite", imagenet, 0.4480, 0.7240, false},
		{"mobilenet_v1_0.75_192_quant.tflite", imagenet, 0.8120, 0.9440, true},
		{"mobilenet_v2_1.0_224_quant.tflite", imagenet, 0.8960, 0.9800, true},
		{"tf2_mobilenet_v2_1.0_224_ptq.tflite", imagenet, 0.8800, 0.9800, true},
		{"pretrainedResnet_quant.tflite", cifar, 0.7470, 0.9820, false},
		{"pretrainedResnet_large_int8.tflite", cifar, 0.7950, 0.9870, true},
	} {
		t.Run(c.model, func(t *testing.T) {
			if c.slow && testing.Short() {
				t.Skip("seconds of inference")
			}
			labels, table, column := "imagenet_labels_1001.txt", "imagenet-sample", "index1001"
			if c.pre.Fit == infer.Stretch {
				labels, table, column = "cifar10_labels.txt", "cifar10-test", "name"
			}
			set, err := dataset.OpenCSV(filepath.Join(testData, "images", table, "labels.csv"), "file", column)
			if err != nil {
				t.Skipf("no test pictures: %v", err)
			}
			p, spec := pool(t, c.model, labels, c.pre)
			r, err := Run(t.Context(), set, spec, p, Options{})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("n %d, top1 %.4f, top5 %.4f, macro F1 %.4f, AUC %.4f, ECE %.4f, prep %.2f ms, invoke %.2f ms, %.1f s in all",
				r.N, r.Top1, r.Top5, r.Macro.F1, *r.AUC, r.ECE, r.Latency.Prep.P50, r.Latency.Invoke.P50, r.Seconds)
			if math.Abs(r.Top1-c.top1) > tolerance || math.Abs(r.Top5-c.top5) > tolerance {
				t.Errorf("top1 %.4f, top5 %.4f; the baseline is %.4f and %.4f", r.Top1, r.Top5, c.top1, c.top5)
			}
			if page := os.Getenv("DROVER_REPORT"); page != "" { // to look at one
				f, err := os.Create(page)
				if err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(r.HTML(f), f.Close()); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
