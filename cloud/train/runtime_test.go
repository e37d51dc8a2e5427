package train

import (
	"errors"
	"math"
	"testing"

	"github.com/droverhq/drover/infer/tflite"
)

// runtimeAccuracy is what the official runtime makes of the written model, fed
// with quantized inputs as the device prepares them.
func runtimeAccuracy(t *testing.T, a *Artifact, samples *memory, delegate tflite.Delegate) float64 {
	t.Helper()
	it, err := tflite.Open(a.TFLite, tflite.Options{Delegate: delegate})
	if errors.Is(err, tflite.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	if err := it.Contract().Diff(a.Spec.Contract); err != nil {
		t.Fatal(err)
	}
	q := a.Spec.Contract.Input.Quant
	pixels, scores, hits := make([]float32, samples.size), make([]float32, a.Spec.Contract.Classes()), 0
	for i := range samples.Len() {
		if err := samples.Pixels(i, pixels); err != nil {
			t.Fatal(err)
		}
		for j, v := range pixels {
			real := math.Round(float64(v/q.Scales[0])) + float64(q.ZeroPoints[0])
			it.Input()[j] = byte(int8(max(-128, min(127, real))))
		}
		if err := it.Invoke(); err != nil {
			t.Fatal(err)
		}
		p, err := a.Spec.Scores(it.Output(), scores)
		if err != nil {
			t.Fatal(err)
		}
		top := 0
		for c := range p {
			if p[c] > p[top] {
				top = c
			}
		}
		if top == samples.Class(i) {
			hits++
		}
	}
	return float64(hits) / float64(samples.Len())
}

func TestRuntimeAgreesWithFloat(t *testing.T) {
	test := blobs(200, 12, 10, 1, 4)
	for _, network := range []string{NetworkSoftmax, NetworkMLP, NetworkLeNet} {
		for _, same := range []bool{false, true} {
			job := tiny(network)
			job.Spec.Same, job.Spec.Epochs = same, 2
			a, err := Run(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			float := must(a.Float.Accuracy(t.Context(), test))
			for _, delegate := range []tflite.Delegate{tflite.Builtin, tflite.XNNPACK} {
				if got := runtimeAccuracy(t, a, test, delegate); math.Abs(got-float) > 0.02 {
					t.Errorf("%s, same %v, %s: %v in the runtime, %v in float", network, same, delegate, got, float)
				}
			}
		}
	}
}

// A layer of zeros and a bias beyond all proportion must still be written.
func TestDegenerateNetworksAreWritten(t *testing.T) {
	job := tiny(NetworkLeNet)
	net := must(NewNetwork(job.Spec))
	for _, p := range net.Params() {
		clear(p.Value)
	}
	net.Layers[0].(*Conv2D).bias.Value[0] = 1e6
	last := net.Layers[len(net.Layers)-1].(*Dense)
	last.bias.Value[2] = 1
	a, err := job.export(t.Context(), net, Progress{})
	if err != nil {
		t.Fatal(err)
	}
	test := blobs(40, 12, 10, 1, 4)
	if got := runtimeAccuracy(t, a, test, tflite.Builtin); got != 0.25 {
		t.Errorf("always class 2 is right in %v of four classes", got)
	}
}

func TestPresetsOnFashionMNIST(t *testing.T) {
	train, test := fashion(t, "train"), fashion(t, "t10k")
	for _, c := range []struct {
		preset string
		least  float64
	}{{"quick", 0.875}, {"good", 0.895}} {
		spec := must(Preset(c.preset))
		spec.Classes, spec.Height, spec.Width, spec.Channels = 10, 28, 28, 1
		if testing.Short() || raceDetector { // a taste: the recipe works at all
			spec.Epochs, spec.PerEpoch, c.least = 1, 2000, 0.6
			test = test.part(0, 1000)
		}
		job := Job{Spec: spec, Train: train, Labels: []string{"top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"},
			Preprocess: gray, DatasetDigest: "fashion-mnist"}
		a, err := Run(t.Context(), job)
		if err != nil {
			t.Fatal(err)
		}
		float := must(a.Float.Accuracy(t.Context(), test))
		got := runtimeAccuracy(t, a, test, tflite.XNNPACK)
		t.Logf("%s: %.0f pictures/s, float %.4f, int8 %.4f, %d parameters, %d bytes",
			c.preset, a.Lineage.PicturesPerSec, float, got, a.Lineage.Parameters, len(a.TFLite))
		if got < c.least || float-got > 0.01 {
			t.Errorf("%s: %v in the runtime, wanted %v; %v in float", c.preset, got, c.least, float)
		}
	}
}

func BenchmarkTrainGood(b *testing.B) {
	spec := must(Preset("good"))
	spec.Classes, spec.Height, spec.Width, spec.Channels = 4, 28, 28, 1
	net := must(NewNetwork(spec))
	e := newEngine(net, blobs(1024, 28, 28, 1, 4), spec.Batch)
	grads := make([][]float32, len(net.Params()))
	for i, p := range net.Params() {
		grads[i] = make([]float32, len(p.Value))
	}
	pictures := order(1, 0, 1024)
	done := 0
	for b.Loop() {
		if _, _, err := e.gradients(b.Context(), pictures[done%(1024-spec.Batch):][:spec.Batch], nil, grads); err != nil {
			b.Fatal(err)
		}
		done += spec.Batch
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "pictures/s")
}
