package main

import (
	"bytes"
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/cloud/evaluate"
)

const sharedData = "../../../shared/data"

// data is a path in the shared test data; the test is skipped without it.
func data(t *testing.T, path string) string {
	t.Helper()
	p := filepath.Join(sharedData, path)
	if _, err := os.Stat(p); err != nil {
		t.Skipf("the shared test data is not here: %v", err)
	}
	return p
}

// drover runs the program in this process.
func drover(args ...string) (code int, stdout, stderr string) {
	var out, errOut bytes.Buffer
	code = run(args, strings.NewReader(""), &out, &errOut)
	return code, out.String(), errOut.String()
}

// TestBaseline holds eval, as an operator runs it, against accuracies that
// another harness measured. Another resampler moves them by a point or two.
func TestBaseline(t *testing.T) {
	dir := inferDir(t)
	imagenet := []string{"--file-column", "file", "--label-column", "index1001"}
	for _, c := range []struct {
		model, set, labels string
		flags              []string
		n                  int
		top1, top5         float64
		slow               bool
	}{
		{"mobilenet_v1_0.25_128_quant", "imagenet-sample/labels.csv", "imagenet_labels_1001.txt", imagenet, 250, 0.4480, 0.7240, false},
		{"mobilenet_v1_0.75_192_quant", "imagenet-sample/labels.csv", "imagenet_labels_1001.txt", imagenet, 250, 0.8120, 0.9440, true},
		{"mobilenet_v2_1.0_224_quant", "imagenet-sample", "imagenet_labels_1001.txt", imagenet, 250, 0.8960, 0.9800, false},
		{"tf2_mobilenet_v2_1.0_224_ptq", "imagenet-sample", "imagenet_labels_1001.txt", imagenet, 250, 0.8800, 0.9800, true},
		{"pretrainedResnet_quant", "cifar10-test", "cifar10_labels.txt", nil, 1000, 0.7470, 0.9820, false},
		{"pretrainedResnet_quant", "cifar10-test/labels.csv", "cifar10_labels.txt", nil, 1000, 0.7470, 0.9820, false},
		{"pretrainedResnet_large_int8", "cifar10-test", "cifar10_labels.txt", nil, 1000, 0.7950, 0.9870, true},
		{"pretrainedResnet", "cifar10-test", "cifar10_labels.txt", []string{"--mean", "0", "--std", "1"}, 1000, 0.7510, 0.9860, true},
	} {
		t.Run(c.model+" "+c.set, func(t *testing.T) {
			if c.slow && (testing.Short() || raceDetector) {
				t.Skip("seconds of inference; package evaluate measures it too")
			}
			args := append([]string{"eval", data(t, "models/"+c.model+".tflite"), data(t, "images/"+c.set),
				"--labels", data(t, "models/"+c.labels), "--json", "--programs", dir}, c.flags...)
			code, stdout, stderr := drover(args...)
			var r evaluate.Report
			if err := json.Unmarshal([]byte(stdout), &r); code != exitOK || err != nil {
				t.Fatalf("exit code %d, %v: %s", code, err, stderr)
			}
			t.Logf("n %d, top1 %.4f, top5 %.4f, %.1f s", r.N, r.Top1, r.Top5, r.Seconds)
			const tolerance = 0.02 + 1e-9
			if r.N != c.n || math.Abs(r.Top1-c.top1) > tolerance || math.Abs(r.Top5-c.top5) > tolerance {
				t.Errorf("n %d, top1 %.4f, top5 %.4f; the baseline is %d, %.4f, %.4f", r.N, r.Top1, r.Top5, c.n, c.top1, c.top5)
			}
		})
	}
}

// TestRefusals wants a named, readable refusal for every model that the runtime
// cannot run, whatever labels were given.
func TestRefusals(t *testing.T) {
	defer goleak.VerifyNone(t)
	dir := inferDir(t)
	labels, set := data(t, "models/imagenet_labels_1001.txt"), data(t, "images/imagenet-sample")
	for _, c := range []struct{ model, says string }{
		{"person_detect", "model refused (model): the runtime cannot build"},
		{"model_invoking_error", `model refused (custom-op): operator "fake-op-double"`},
		{"mobilenet_v2_1.0_224_quant_edgetpu", `model refused (custom-op): operator "edgetpu-custom-op"`},
		{"mobilenet_v1_0.25_128_quant_edgetpu", `model refused (custom-op): operator "edgetpu-custom-op"`},
		{"mobilenet_v1_0.75_192_quant_edgetpu", `model refused (custom-op): operator "edgetpu-custom-op"`},
	} {
		t.Run(c.model, func(t *testing.T) {
			code, stdout, stderr := drover("eval", data(t, "models/"+c.model+".tflite"), set, "--label-column", "index1001",
				"--labels", labels, "--json", "--programs", dir)
			line, _, _ := strings.Cut(stderr, "\n")
			if code != exitRefused || stdout != "" || !strings.HasPrefix(line, "error: ") || !strings.Contains(line, c.says) || len(line) > 1000 {
				t.Errorf("exit code %d, wanted %d and %q:\n%s", code, exitRefused, c.says, stderr)
			}
		})
	}
}
