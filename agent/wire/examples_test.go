package wire_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
)

var update = flag.Bool("update", false, "write testdata anew from the examples; look at the difference before committing it")

func header(seq uint64) wire.Header {
	return wire.Header{V: wire.Version, Boot: "5f0c1c1e-7f4d-4d2a-9a55-0f6a3a0e9b11", Seq: seq, At: 1790000000123}
}

func spec() infer.Spec {
	return infer.Spec{
		Contract: infer.Contract{
			Input: infer.TensorSpec{
				Name: "image", Shape: []int{1, 28, 28, 1}, DType: infer.Uint8,
				Quant: infer.Quant{Scales: []float32{0.0078125}, ZeroPoints: []int32{128}, Axis: 3},
			},
			Output: infer.TensorSpec{
				Name: "scores", Shape: []int{1, 2}, DType: infer.Int8,
				Quant: infer.Quant{Scales: []float32{0.00390625}, ZeroPoints: []int32{-128}, Axis: 1},
			},
		},
		Labels: []string{"boot", "shirt"},
		Preprocess: infer.Preprocess{
			Color: infer.Gray, Fit: infer.Letterbox, CropFraction: 0.875, Interpolation: infer.Area,
			Mean: []float32{127.5}, Std: []float32{127.5}, Pad: 114,
		},
		Postprocess: infer.Postprocess{Activation: infer.Softmax, Temperature: 1.5, TopK: 2, Threshold: 0.25},
	}
}

// bigRef is the reference of a blob of two chunks.
func bigRef() wire.BlobRef { return wire.NewBlobRef(bytes.Repeat([]byte("drover"), 16384)) }

// smallRef is smaller than bigRef, and has two chunks all the same.
func smallRef() wire.BlobRef { return wire.NewBlobRef(bytes.Repeat([]byte("delta"), 14000)) }

func manifest() *wire.Manifest {
	report := bigRef()
	return &wire.Manifest{
		V: wire.Version, Model: "gate", Version: 7, Created: 1790000000, Epoch: 2, Notes: "more boots",
		Variants: []wire.Variant{{
			Name: "cpu", Model: bigRef(), Spec: spec(), Golden: bigRef(), Tolerance: 1, Requires: []string{"xnnpack"},
			Deltas: []wire.Delta{{Base: wire.NewBlobRef([]byte("6")).Digest, Size: 98000, Blob: smallRef()}},
		}},
		Budget: wire.Budget{LatencyP99Micros: 40000, MemoryBytes: 64 << 20, DataBytes: 4 << 20},
		Report: &report, Dataset: wire.NewBlobRef([]byte("dataset")).Digest, Requires: []string{"probe"},
	}
}

func plan() *wire.Plan {
	p := &wire.Plan{
		V: wire.Version, ID: "gate-7", Serial: 12, Release: "release/gate/7",
		Selector: wire.Selector{Devices: []string{"cam-1"}, Labels: map[string]string{"site": "north"}, Seed: "gate-7", Threshold: wire.Whole / 2},
	}
	p.Probation.Frames, p.Probation.Seconds = 100, 300
	return p
}

func state() *wire.State {
	ref := func(v, variant string) *wire.ReleaseRef {
		return &wire.ReleaseRef{Path: "release/gate/" + v, Digest: wire.NewBlobRef([]byte(v)).Digest, Variant: variant}
	}
	return &wire.State{
		Header: header(3), Agent: "0.1.0", Arch: "arm64", Labels: map[string]string{"site": "north"},
		Active: ref("6", "cpu"), Previous: ref("5", "cpu"), Candidate: ref("7", "cpu"),
		Update: wire.UpdateStatus{
			State: wire.Fetch, Plan: "gate-7", Release: "release/gate/7", Done: 65536, Total: 98304,
			Outcome: wire.Refused, Reason: wire.ReasonGolden, Message: "golden input 3 gave 17, signed was 4", Finished: 1790000000000,
		},
		Cameras: []wire.CameraState{{Name: "door", State: "running", FPS: 14.5, Width: 640, Height: 480, Restarts: 1, Error: "read timed out"}},
		Model: wire.ModelState{
			State: "running", Delegate: "xnnpack", Fallback: "no Edge TPU", Restarts: 1, FPS: 14.5, InvokeP50: 210, InvokeP99: 340,
			Unenforced: []string{"landlock"}, Error: "killed by signal 11",
		},
		Epoch: 2, Assurance: "software", Freshness: "current", Root: 1, Healthy: true,
		Problems: []string{"disk 91 % full"}, Config: "cameras[0].colour: unknown key",
	}
}

// example is one message with every field set, so that a field which is added
// later is noticed here.
type example struct {
	file   string
	value  any // pointer
	limit  int
	strict bool
}

func examples() []example {
	return []example{
		{"online.json", &wire.Online{V: wire.Version, Online: true, Session: header(1).Boot, Agent: "0.1.0"}, wire.MaxMessage, false},
		{"state.json", state(), wire.MaxMessage, false},
		{"event.json", &wire.Event{
			Header: header(4), Kind: wire.EventUpdate, Release: "release/gate/7", Plan: "gate-7", From: wire.Probe, To: wire.Idle,
			Outcome: wire.Refused, Reason: wire.ReasonGolden, Message: "golden input 3 gave 17, signed was 4",
		}, wire.MaxMessage, false},
		{"telemetry.json", &wire.Telemetry{
			Header: header(5), Camera: "door", Release: "release/gate/6", Seconds: 60, Results: 870, Dropped: 3, Stale: 1,
			Classes: []uint64{800, 70}, Confidence: []uint64{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10, 10, 20, 30, 40, 60, 100, 100, 200, 300},
			AgeP50: 21000, AgeP99: 48000,
		}, wire.MaxMessage, false},
		{"get.json", &wire.Get{Header: header(6), Blob: bigRef().Digest, First: 8, Want: []byte{0x03, 0x80}, Again: true, Alone: true}, wire.MaxMessage, false},
		{"current.json", &wire.Current{V: wire.Version, Timestamp: []byte(`{"signed":{},"signatures":[]}`), Snapshot: []byte(`{"signed":{},"signatures":[]}`)}, wire.MaxCurrent, false},
		{"manifest.json", manifest(), wire.MaxManifest, true},
		{"plan.json", plan(), wire.MaxRollouts, true},
		{"golden.json", &wire.Golden{V: wire.Version, Cases: []wire.GoldenCase{{
			Width: 2, Height: 1, Format: "gray8", Pixels: []byte{0, 255}, Output: []byte{0x80, 0x7f}, XNNPACK: []byte{0x81, 0x7e}, Label: "boot",
		}}}, wire.MaxGolden, true},
		{"enroll-request.json", &wire.EnrollRequest{V: wire.Version, Secret: "0123456789abcdef0123456789abcdef", Device: "cam-1", CSR: []byte{0x30, 0}}, wire.MaxMessage, false},
		{"enroll-response.json", &wire.EnrollResponse{
			V: wire.Version, Fleet: "demo", Device: "cam-1", Chain: [][]byte{{0x30, 0}}, CA: [][]byte{{0x30, 0}},
			Broker: "hub.example:8883", Sources: []string{"https://hub.example:8884"}, Root: []byte(`{"signed":{},"signatures":[]}`),
		}, wire.MaxMessage, false},
		{"renew.json", &wire.Renew{Header: header(7), CSR: []byte{0x30, 0}}, wire.MaxRenew, false},
		{"certificate.json", &wire.Certificate{
			V: wire.Version, At: 1790000000, Chain: [][]byte{{0x30, 1}, {0x30, 2}}, Renew: true, Spread: 600,
			Error: "device is revoked", Hint: "enrol it anew",
		}, wire.MaxMessage, false},
		{"enroll-error.json", &wire.EnrollError{V: wire.Version, Error: "token is spent", Hint: "make another with drover enroll"}, wire.MaxMessage, false},
	}
}

// The files under testdata are the protocol in the small: what is written today
// must read the same for ever.
func TestGoldenFiles(t *testing.T) {
	for _, e := range examples() {
		t.Run(e.file, func(t *testing.T) {
			path := filepath.Join("testdata", e.file)
			if *update {
				var pretty bytes.Buffer
				if err := json.Indent(&pretty, wire.Encode(e.value), "", "  "); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, append(pretty.Bytes(), '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			got := reflect.New(reflect.TypeOf(e.value).Elem()).Interface()
			decode := wire.Decode
			if e.strict {
				decode = wire.DecodeStrict
			}
			if err := decode(file, e.limit, got); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(e.value, got); d != "" {
				t.Errorf("the file reads differently (-example +file):\n%s", d)
			}
			var compact bytes.Buffer
			if err := json.Compact(&compact, file); err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(compact.String(), string(wire.Encode(e.value))); d != "" {
				t.Errorf("the example is written differently (-file +example):\n%s", d)
			}
			unset(t, e.file, reflect.ValueOf(e.value).Elem())
		})
	}
}

// unset fails for every field that has its zero value.
func unset(t *testing.T, path string, v reflect.Value) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			unset(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	case reflect.Pointer:
		if v.IsNil() {
			t.Errorf("%s is not set in the example", path)
			return
		}
		unset(t, path, v.Elem())
	case reflect.Slice:
		if v.Len() == 0 {
			t.Errorf("%s is empty in the example", path)
		}
		if v.Type().Elem().Kind() == reflect.Struct {
			for i := range v.Len() {
				unset(t, path, v.Index(i))
			}
		}
	default:
		if v.IsZero() {
			t.Errorf("%s is not set in the example", path)
		}
	}
}

func TestEveryGoldenFileIsRead(t *testing.T) {
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != len(examples()) {
		t.Errorf("%d files for %d examples", len(files), len(examples()))
	}
}
