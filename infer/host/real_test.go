package host

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/test/programs"
)

const (
	root   = "../.."
	models = root + "/../shared/data/models"
)

// realProgram finds or builds drover-infer, once per test binary.
var realProgram = sync.OnceValues(func() (string, error) {
	dir, remove, err := programs.Folder(ProgramName)
	removeReal = remove
	return filepath.Join(dir, ProgramName), err
})

var removeReal func() // set by realProgram; TestMain calls it

func realOptions(t testing.TB) Options {
	t.Helper()
	path, err := realProgram()
	if err != nil {
		t.Fatal(err)
	}
	return Options{Program: path}
}

func readModel(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(models, name))
	if err != nil {
		t.Skipf("real models are not here: %v", err)
	}
	return b
}

// startReal starts the real child and ends it with the test.
func startReal(t testing.TB, o Options) *Child {
	t.Helper()
	c, err := Start(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// specFor makes a spec around the contract that the runtime reads off a model.
func specFor(t testing.TB, o Options, model []byte) *infer.Spec {
	t.Helper()
	c := startReal(t, o)
	l, err := c.Load(t.Context(), model, nil, protocol.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	_, _, ch, _, err := l.Contract.InputGeometry()
	if err != nil {
		t.Fatal(err)
	}
	s := &infer.Spec{
		Contract: l.Contract,
		Labels:   make([]string, l.Contract.Classes()),
		Preprocess: infer.Preprocess{
			Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear,
			Mean: []float32{127.5}, Std: []float32{127.5},
		},
		Postprocess: infer.DefaultPostprocess(),
	}
	if ch == 1 {
		s.Preprocess.Color = infer.Gray
	}
	return s
}

// picture is a deterministic test picture.
func picture(w, h int, format camera.PixelFormat) *camera.Frame {
	f := &camera.Frame{Width: w, Height: h, Stride: w * format.Channels(), Format: format}
	f.Data = make([]byte, h*f.Stride)
	for i := range f.Data {
		f.Data[i] = byte(i * 7 >> 3)
	}
	return f
}

func TestRealChild(t *testing.T) {
	o := realOptions(t)
	model := readModel(t, "mobilenet_v1_0.25_128_quant.tflite")
	spec := specFor(t, o, model)
	start := time.Now()
	c := startReal(t, o)
	sealed := time.Since(start)
	if !c.Sealed().Seccomp {
		t.Errorf("not sealed: %+v", c.Sealed())
	}
	start = time.Now()
	l, err := c.Load(t.Context(), model, spec, protocol.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v %+v; sealed after %v, loaded after %v more (load %d µs, warm-up %d µs, %s)",
		c.Hello(), c.Sealed(), sealed, time.Since(start), l.LoadMicros, l.WarmMicros, l.Delegate)

	f := picture(128, 128, camera.BGR8)
	a, err := c.Classify(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Output) != spec.Contract.Output.Bytes() || a.Invoke <= 0 {
		t.Errorf("answer %d bytes in %v", len(a.Output), a.Invoke)
	}
	tensor, err := c.Prepare(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := c.Invoke(t.Context(), tensor, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(a.Output) != string(b.Output) {
		t.Error("Prepare and Invoke give another output than Classify")
	}
	if _, err := c.Load(t.Context(), model, spec, protocol.Runtime{}); !errors.Is(err, ErrState) {
		t.Errorf("second model: %v", err)
	}
	if _, err := c.Classify(t.Context(), &camera.Frame{Width: 1}, nil); !errors.Is(err, camera.ErrFrame) {
		t.Errorf("impossible frame: %v", err)
	}
}

func TestRealRefusals(t *testing.T) {
	o := realOptions(t)
	for _, tc := range []struct {
		name string
		kind protocol.RefusalKind
	}{
		{"mobilenet_v2_1.0_224_quant_edgetpu.tflite", protocol.RefusedCustomOp},
		{"SOURCES.md", protocol.RefusedModel},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := startReal(t, o)
			_, err := c.Load(t.Context(), readModel(t, tc.name), nil, protocol.Runtime{})
			var r *Refusal
			if !errors.As(err, &r) || r.Kind != tc.kind || r.Message == "" {
				t.Fatalf("got %v, expected a refusal of kind %s", err, tc.kind)
			}
			t.Log(err)
			select {
			case <-c.Done():
			case <-time.After(10 * time.Second):
				t.Error("the child stays after its refusal")
			}
		})
	}
}

func TestRealPool(t *testing.T) {
	o := realOptions(t)
	model := readModel(t, "mobilenet_v1_0.25_128_quant.tflite")
	p, err := NewPool(t.Context(), 2, o, model, specFor(t, o, model), protocol.Runtime{})
	if err != nil {
		t.Fatal(err)
	}
	f := picture(200, 100, camera.Gray8)
	first, err := p.Classify(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var out []byte
			for range 5 {
				a, err := p.Classify(t.Context(), f, out)
				if err != nil {
					t.Error(err)
					return
				}
				if out = a.Output; string(out) != string(first.Output) {
					t.Error("two children disagree about one picture")
				}
			}
		})
	}
	wg.Wait()
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	if _, err := p.Classify(t.Context(), f, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Frames of a ring come back as results with the output that Classify gives for
// the same picture, until the ring is detached.
func TestRealRing(t *testing.T) {
	o := realOptions(t)
	model := readModel(t, "mobilenet_v1_0.25_128_quant.tflite")
	c := startReal(t, o)
	results := make(chan protocol.Result, 16)
	c.OnResult(func(r *protocol.Result) {
		own := *r
		own.Data = bytes.Clone(r.Data)
		select {
		case results <- own:
		default:
		}
	})
	if _, err := c.Load(t.Context(), model, specFor(t, o, model), protocol.Runtime{}); err != nil {
		t.Fatal(err)
	}
	f := picture(160, 120, camera.BGR8)
	want, err := c.Classify(t.Context(), f, nil)
	if err != nil {
		t.Fatal(err)
	}

	ring, err := camera.NewRing(4, len(f.Data))
	if err != nil {
		t.Fatal(err)
	}
	defer ring.Close()
	w, err := camera.OpenWriter(ring)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := camera.SealRing(ring); err != nil {
		t.Fatal(err)
	}
	event, err := camera.NewEvent()
	if err != nil {
		t.Fatal(err)
	}
	defer event.Close()
	if err := c.Attach(7, ring, event, 0); err != nil {
		t.Fatal(err)
	}
	for seq := uint64(1); seq <= 3; seq++ {
		f.Seq, f.CapturedAt = seq, camera.Monotonic()
		if err := w.Write(f); err != nil {
			t.Fatal(err)
		}
		if err := camera.Signal(camera.EventFD(event)); err != nil {
			t.Fatal(err)
		}
		select {
		case r := <-results:
			if r.Source != 7 || r.ID != seq || r.Status != protocol.OK || r.CapturedNs != int64(f.CapturedAt) || r.StartNs < r.CapturedNs || !bytes.Equal(r.Data, want.Output) {
				t.Fatalf("frame %d: %+v", seq, r)
			}
		case <-c.Done():
			t.Fatal(c.Err())
		case <-time.After(20 * time.Second):
			t.Fatalf("no result for frame %d", seq)
		}
	}
	if err := c.Detach(7); err != nil {
		t.Fatal(err)
	}
	// An answered request proves that Detach has been read.
	if _, err := c.Classify(t.Context(), f, nil); err != nil {
		t.Fatal(err)
	}
	f.Seq = 4
	if err := w.Write(f); err != nil {
		t.Fatal(err)
	}
	if err := camera.Signal(camera.EventFD(event)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Classify(t.Context(), f, nil); err != nil {
		t.Fatal(err)
	}
	if len(results) != 0 {
		t.Errorf("a detached ring still gives results: %+v", <-results)
	}
}

// A model that is cut or random is a refusal, never the end of the parent.
func TestRealBrokenModels(t *testing.T) {
	o := realOptions(t)
	model := readModel(t, "vww_96_int8.tflite")
	random := make([]byte, 10_000)
	for i := range random {
		random[i] = byte(i * i >> 3)
	}
	copy(random[4:], "TFL3")
	for name, b := range map[string][]byte{
		"empty": {}, "random": random, "cut to a half": model[:len(model)/2], "cut by a byte": model[:len(model)-1], "cut to 100": model[:100],
	} {
		t.Run(name, func(t *testing.T) {
			c := startReal(t, o)
			_, err := c.Load(t.Context(), b, nil, protocol.Runtime{})
			var refusal *Refusal
			var death *Death
			switch {
			case errors.As(err, &refusal), errors.As(err, &death):
				t.Log(err)
			case err != nil:
				t.Errorf("unnamed error: %v", err)
			case name != "cut by a byte": // may be padding
				t.Error("accepted")
			}
		})
	}
}
