package main

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// cifar is the spec of the small models for 32×32 pictures.
func cifar(t *testing.T, model []byte) *infer.Spec {
	return &infer.Spec{
		Contract:    contractOf(t, model),
		Labels:      strings.Fields(string(sample(t, "models/cifar10_labels.txt"))),
		Preprocess:  infer.Preprocess{Color: infer.RGB, Fit: infer.Stretch, CropFraction: 1, Interpolation: infer.Bilinear, Mean: []float32{0}, Std: []float32{1}},
		Postprocess: infer.DefaultPostprocess(),
	}
}

// pattern is a frame of 32×32 with something round in it, brighter with v.
func pattern(v byte) *camera.Frame {
	f := &camera.Frame{Width: 32, Height: 32, Stride: 96, Format: camera.BGR8, Data: make([]byte, 32*96)}
	for i := range f.Data {
		x, y := i%96/3-16, i/96-16
		f.Data[i] = 128 - v/2
		if r := x*x + y*y; r < 40+int(v) {
			f.Data[i] = byte(r) + v + byte(20*(i%3))
		}
	}
	return f
}

// tensorOf is pattern as the int8 input tensor.
func tensorOf(f *camera.Frame) []byte {
	out := make([]byte, len(f.Data))
	for i := 0; i < len(out); i += 3 {
		for c := range 3 {
			out[i+c] = f.Data[i+2-c] - 128
		}
	}
	return out
}

func TestLoadAndRunAllKinds(t *testing.T) {
	model := sample(t, "models/pretrainedResnet_quant.tflite")
	spec := cifar(t, model)
	p := start(t)
	loaded, refused := p.load(model, spec, protocol.Runtime{}, 1<<20)
	if refused != nil {
		t.Fatal(refused)
	}
	if err := loaded.Contract.Diff(spec.Contract); err != nil {
		t.Error(err)
	}
	if loaded.Delegate != protocol.XNNPACK || loaded.Fallback != "" || loaded.LoadMicros < 1 || loaded.WarmMicros < 1 {
		t.Errorf("loaded %+v", loaded)
	}
	f := pattern(9)
	prepared := p.run(protocol.RunPrepare, f)
	if !bytes.Equal(prepared.Data, tensorOf(f)) {
		t.Error("the prepared tensor is not the frame's pixels − 128, in RGB")
	}
	if prepared.PrepNs < 1 || prepared.InvokeNs != 0 || prepared.ID != 1 || prepared.Source != protocol.RunSource {
		t.Errorf("prepared: %+v", prepared)
	}
	byFrame := p.run(protocol.RunFrame, f)
	byTensor := p.run(protocol.RunTensor, &camera.Frame{Data: tensorOf(f)})
	if len(byFrame.Data) != 10 || !bytes.Equal(byFrame.Data, byTensor.Data) {
		t.Errorf("output %v of the frame, %v of its tensor", byFrame.Data, byTensor.Data)
	}
	if byFrame.PrepNs < 1 || byFrame.InvokeNs < 1 || byFrame.StartNs < prepared.StartNs || byTensor.PrepNs != 0 {
		t.Errorf("times: %+v, %+v", byFrame, byTensor)
	}
	if other := p.run(protocol.RunFrame, pattern(100)); bytes.Equal(other.Data, byFrame.Data) {
		t.Error("another frame has the same output")
	}
	p.send(protocol.KindStop, struct{}{})
	if code, said := p.exit(); code != 0 {
		t.Errorf("exit %d: %s", code, said)
	}
}

func TestAnswersComeInOrder(t *testing.T) {
	model := sample(t, "models/pretrainedResnet_quant.tflite")
	p := start(t)
	if _, refused := p.load(model, nil, protocol.Runtime{}, 1<<20); refused != nil {
		t.Fatal(refused)
	}
	const n = 50
	for id := range uint64(n) {
		p.send(protocol.KindRun, protocol.Run{ID: id, What: protocol.RunTensor, Bytes: 32 * 32 * 3})
	}
	for id := range uint64(n) {
		if r := p.result(); r.ID != id || r.Status != protocol.OK {
			t.Fatalf("result %+v, want id %d", r, id)
		}
	}
}

func TestLargeResultComesByMemfd(t *testing.T) {
	model := sample(t, "models/mobilenet_v2_1.0_224_quant.tflite")
	spec := cifar(t, model)
	spec.Labels = make([]string, 1001)
	p := start(t)
	if _, refused := p.load(model, spec, protocol.Runtime{}, 1<<20); refused != nil {
		t.Fatal(refused)
	}
	r := p.run(protocol.RunPrepare, pattern(0))
	if len(r.Data) != 224*224*3 {
		t.Errorf("%d bytes", len(r.Data))
	}
	r = p.run(protocol.RunFrame, pattern(0))
	if len(r.Data) != 1001 {
		t.Errorf("%d bytes", len(r.Data))
	}
}

func TestBadPicturesAreAnswered(t *testing.T) {
	model := sample(t, "models/pretrainedResnet_quant.tflite")
	p := start(t)
	if _, refused := p.load(model, cifar(t, model), protocol.Runtime{}, 1<<20); refused != nil {
		t.Fatal(refused)
	}
	for _, req := range []protocol.Run{
		{What: protocol.RunFrame},
		{What: protocol.RunFrame, Width: 32, Height: 32, Stride: 96, Format: 9, Bytes: 32 * 96},
		{What: protocol.RunFrame, Width: 32, Height: 32, Stride: 95, Format: 1, Bytes: 32 * 95},
		{What: protocol.RunPrepare, Width: 1 << 40, Height: 1, Stride: 96, Format: 1, Bytes: 96},
		{What: protocol.RunTensor, Bytes: 3},
	} {
		p.send(protocol.KindRun, req)
		if r := p.result(); r.Status != protocol.BadFrame || len(r.Data) == 0 {
			t.Errorf("%+v: status %d, %q", req, r.Status, r.Data)
		}
	}
	p.run(protocol.RunFrame, pattern(1))
}

func TestRefusals(t *testing.T) {
	good := sample(t, "models/pretrainedResnet_quant.tflite")
	wrong := func(change func(*infer.Spec)) *infer.Spec {
		s := *cifar(t, good)
		change(&s)
		return &s
	}
	for _, tc := range []struct {
		name    string
		model   []byte
		spec    *infer.Spec
		runtime protocol.Runtime
		kind    protocol.RefusalKind
		words   string
	}{
		{"random bytes", bytes.Repeat([]byte{0x5a, 1}, 500), nil, protocol.Runtime{}, protocol.RefusedModel, "not a TFLite model"},
		{"empty", nil, nil, protocol.Runtime{}, protocol.RefusedModel, "empty"},
		{"cut", good[:len(good)/2], nil, protocol.Runtime{}, protocol.RefusedModel, "cut off"},
		{"Edge TPU", sample(t, "models/mobilenet_v2_1.0_224_quant_edgetpu.tflite"), nil, protocol.Runtime{}, protocol.RefusedCustomOp, "edgetpu-custom-op"},
		{"another custom operator", sample(t, "models/model_invoking_error.tflite"), nil, protocol.Runtime{}, protocol.RefusedCustomOp, "fake-op-double"},
		{"invalid quantization", sample(t, "models/person_detect.tflite"), nil, protocol.Runtime{}, protocol.RefusedModel, "quantized_dimension must be in range"},
		{"no such delegate", good, nil, protocol.Runtime{Delegate: protocol.External, Library: "/nowhere.so"}, protocol.RefusedDelegate, "/nowhere.so"},
		{"label missing", good, wrong(func(s *infer.Spec) { s.Labels = s.Labels[:9] }), protocol.Runtime{}, protocol.RefusedContract, "9 labels for 10 outputs"},
		{"other shape", good, wrong(func(s *infer.Spec) { s.Contract.Input.Shape = []int{1, 64, 64, 3} }), protocol.Runtime{}, protocol.RefusedContract, "expected [1 64 64 3]"},
		{"other quantization", good, wrong(func(s *infer.Spec) { s.Contract.Output.Quant.Scales = []float32{0.5} }), protocol.Runtime{}, protocol.RefusedContract, "output quantization"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := start(t)
			_, refused := p.load(tc.model, tc.spec, tc.runtime, 0)
			if refused == nil || refused.Kind != tc.kind || !strings.Contains(refused.Message, tc.words) {
				t.Errorf("refused %+v; want %s with %q", refused, tc.kind, tc.words)
			}
			if code, said := p.exit(); code != 0 {
				t.Errorf("exit %d: %s", code, said)
			}
		})
	}
}

func TestProtocolViolationsEndTheChild(t *testing.T) {
	model := sample(t, "models/pretrainedResnet_quant.tflite")
	ready := func(p *parent) {
		if _, refused := p.load(model, nil, protocol.Runtime{}, 4096); refused != nil {
			t.Fatal(refused)
		}
	}
	memfd := func(p *parent) int {
		fd, err := unix.MemfdCreate("x", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			t.Fatal(err)
		}
		p.t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	for _, tc := range []struct {
		name  string
		do    func(p *parent)
		words string
	}{
		{"Run before Load", func(p *parent) { p.send(protocol.KindRun, protocol.Run{What: protocol.RunTensor}) }, "where Load was due"},
		{"Load without a model", func(p *parent) { p.send(protocol.KindLoad, protocol.Load{}) }, "Load with 0 descriptors"},
		{"Load of an open memfd", func(p *parent) { p.send(protocol.KindLoad, protocol.Load{}, memfd(p)) }, "not sealed"},
		{"Load of no memfd", func(p *parent) { p.send(protocol.KindLoad, protocol.Load{}, 0) }, "no memfd"},
		{"unknown key", func(p *parent) { p.send(protocol.KindLoad, map[string]int{"colour": 1}, memfd(p)) }, `unknown field "colour"`},
		{"second Load", func(p *parent) { ready(p); p.send(protocol.KindLoad, protocol.Load{}, memfd(p)) }, "unexpected message 1"},
		{"a child's message", func(p *parent) { ready(p); p.send(protocol.KindHello, protocol.Hello{}) }, "unexpected message 2"},
		{"Run beyond scratch", func(p *parent) {
			ready(p)
			p.send(protocol.KindRun, protocol.Run{What: protocol.RunTensor, Bytes: 4097})
		}, "Run of 4097 bytes"},
		{"Run of unknown kind", func(p *parent) { ready(p); p.send(protocol.KindRun, protocol.Run{What: "walk"}) }, `unknown kind "walk"`},
		{"frame without spec", func(p *parent) { ready(p); p.send(protocol.KindRun, protocol.Run{What: protocol.RunFrame}) }, "no spec"},
		{"Attach without spec", func(p *parent) { ready(p); p.send(protocol.KindAttach, protocol.Attach{}, memfd(p), memfd(p)) }, "no spec"},
		{"Detach of nothing", func(p *parent) { ready(p); p.send(protocol.KindDetach, protocol.Detach{Source: 3}) }, "not attached"},
		{"two JSON values", func(p *parent) {
			ready(p)
			if err := p.conn.Send(protocol.KindRun, []byte(`{}{}`)); err != nil {
				t.Fatal(err)
			}
		}, "more than one JSON value"},
		{"no JSON", func(p *parent) {
			if err := p.conn.Send(protocol.KindLoad, []byte("\x00\xff")); err != nil {
				t.Fatal(err)
			}
		}, "Load: invalid character"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := start(t)
			tc.do(p)
			code, said := p.exit()
			if code != exitError || !strings.Contains(said, tc.words) || !strings.Contains(said, "drover-infer: ") {
				t.Errorf("exit %d: %s; want 1 and %q", code, said, tc.words)
			}
		})
	}
}

func TestParentGoes(t *testing.T) {
	for name, after := range map[string]func(p *parent){
		"at once":     func(*parent) {},
		"when loaded": func(p *parent) { p.load(sample(t, "models/vww_96_int8.tflite"), nil, protocol.Runtime{}, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t)
			after(p)
			p.conn.Close()
			if code, said := p.exit(); code != 0 {
				t.Errorf("exit %d: %s", code, said)
			}
		})
	}
}

func TestStartedByHand(t *testing.T) {
	for _, tc := range []struct {
		name   string
		args   []string
		code   int
		stdout string
		stderr string
	}{
		{"no socket", nil, exitUsage, "", "child program of droverd and drover"},
		{"version", []string{"--version"}, exitOK, "drover-infer ", ""},
		{"help", []string{"--help"}, exitOK, "", "-profile"},
		{"unknown flag", []string{"--frobnicate"}, exitUsage, "", "frobnicate"},
		{"argument", []string{"model.tflite"}, exitUsage, "", "model.tflite"},
		{"unknown profile", []string{"--profile", "camera"}, exitUsage, "", "camera"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var stdout, stderr strings.Builder
			cmd := exec.Command(os.Args[0], tc.args...)
			cmd.Env = append(os.Environ(), childEnv+"=1")
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("exit %d, stdout %q, stderr %q", code, stdout.String(), stderr.String())
			}
		})
	}
}

func TestGreetingBeforeAnythingElse(t *testing.T) {
	p := begin(t)
	for _, kind := range []byte{protocol.KindHello, protocol.KindSealed} {
		if m := p.recv(); m.Kind != kind {
			t.Errorf("message %d, want %d", m.Kind, kind)
		}
	}
	if ipc.ChildFD != 3 {
		t.Error("the descriptor is 3 by contract")
	}
}

func TestCPUModel(t *testing.T) {
	for want, text := range map[string]string{
		"Example CPU @ 2 GHz": "processor\t: 0\nmodel name\t: Example CPU @ 2 GHz\nmodel name\t: other\n",
		"arm 0x41/0xd0b":      "processor\t: 0\nCPU implementer\t: 0x41\nCPU part\t: 0xd0b\n\n",
		"":                    "nothing of the kind",
	} {
		if got := cpuModel(fstest.MapFS{"cpuinfo": {Data: []byte(text)}}); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := cpuModel(fstest.MapFS{}); got != "" {
		t.Errorf("%q without /proc", got)
	}
}
