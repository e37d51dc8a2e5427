//go:build cgo

package tflite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/infer"
)

// sample reads one of the real models that stand beside the repository.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../shared/data/models", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no sample models here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func tensor(dtype infer.DType, scale float32, zero int32, shape ...int) infer.TensorSpec {
	s := infer.TensorSpec{Shape: shape, DType: dtype}
	if scale != 0 {
		s.Quant = infer.Quant{Scales: []float32{scale}, ZeroPoints: []int32{zero}}
	}
	return s
}

func TestOpenSampleModels(t *testing.T) {
	uint8In := func(side int) infer.TensorSpec { return tensor(infer.Uint8, 1./128, 128, 1, side, side, 3) }
	imagenet := tensor(infer.Uint8, 1./256, 0, 1, 1001)
	cifarIn, cifarOut := tensor(infer.Int8, 1, -128, 1, 32, 32, 3), tensor(infer.Int8, 1./256, -128, 1, 10)
	for _, tc := range []struct {
		model    string
		contract infer.Contract
		used     Delegate
		fallback string // part of it
	}{
		{"mobilenet_v1_0.25_128_quant", infer.Contract{Input: uint8In(128), Output: imagenet}, Builtin, "failed to delegate CONV_2D node"},
		{"mobilenet_v1_0.75_192_quant", infer.Contract{Input: uint8In(192), Output: imagenet}, Builtin, "failed to delegate CONV_2D node"},
		{"mobilenet_v2_1.0_224_quant", infer.Contract{Input: uint8In(224), Output: imagenet}, Builtin, "failed to delegate CONV_2D node"},
		{"mobilenet_v1_1.0_224_quant_embedding_extractor", infer.Contract{Input: uint8In(224), Output: tensor(infer.Uint8, 0.023528477, 0, 1, 1, 1, 1024)}, Builtin, "failed to delegate"},
		{"tf2_mobilenet_v2_1.0_224_ptq", infer.Contract{Input: tensor(infer.Uint8, 0.007843138, 127, 1, 224, 224, 3), Output: imagenet}, XNNPACK, ""},
		{"pretrainedResnet_quant", infer.Contract{Input: cifarIn, Output: cifarOut}, XNNPACK, ""},
		{"pretrainedResnet_large_int8", infer.Contract{Input: cifarIn, Output: cifarOut}, XNNPACK, ""},
		{"pretrainedResnet", infer.Contract{Input: tensor(infer.Float32, 0, 0, 1, 32, 32, 3), Output: tensor(infer.Float32, 0, 0, 1, 10)}, XNNPACK, ""},
		{"vww_96_int8", infer.Contract{Input: tensor(infer.Int8, 0.003921569, -128, 1, 96, 96, 3), Output: tensor(infer.Int8, 1./256, -128, 1, 2)}, XNNPACK, ""},
	} {
		t.Run(tc.model, func(t *testing.T) {
			it, err := Open(sample(t, tc.model+".tflite"), Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer it.Close()
			got := it.Contract()
			if got.Input.Name == "" || got.Output.Name == "" {
				t.Error("tensors have no names")
			}
			got.Input.Name, got.Output.Name = "", ""
			if d := cmp.Diff(tc.contract, got); d != "" {
				t.Errorf("contract (-want +got):\n%s", d)
			}
			used, fallback := it.Delegate()
			if used != tc.used || !strings.Contains(fallback, tc.fallback) || (tc.fallback == "") != (fallback == "") {
				t.Errorf("runs on %s, fallback %q; want %s, %q", used, fallback, tc.used, tc.fallback)
			}
			if len(it.Input()) != got.Input.Bytes() || len(it.Output()) != got.Output.Bytes() {
				t.Errorf("%d and %d bytes of tensor memory", len(it.Input()), len(it.Output()))
			}
			if err := it.Invoke(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestOpenRefusesWithTheRuntimesWords(t *testing.T) {
	for _, tc := range []struct {
		model string
		kind  Kind
		words string
	}{
		{"mobilenet_v2_1.0_224_quant_edgetpu", KindCustomOp, `"edgetpu-custom-op"`},
		{"mobilenet_v1_0.25_128_quant_edgetpu", KindCustomOp, "Encountered unresolved custom op: edgetpu-custom-op"},
		{"mobilenet_v1_0.75_192_quant_edgetpu", KindCustomOp, `"edgetpu-custom-op"`},
		{"model_invoking_error", KindCustomOp, `"fake-op-double"`},
		{"person_detect", KindModel, "quantized_dimension must be in range [0, 1). Was 3."},
	} {
		t.Run(tc.model, func(t *testing.T) {
			for _, d := range []Delegate{Builtin, XNNPACK} {
				_, err := Open(sample(t, tc.model+".tflite"), Options{Delegate: d})
				var r *Refusal
				if !errors.As(err, &r) || r.Kind != tc.kind || !strings.Contains(err.Error(), tc.words) {
					t.Errorf("%s: error %v; want kind %s and %q", d, err, tc.kind, tc.words)
				}
				if err != nil && (len(err.Error()) > 1300 || strings.Contains(err.Error(), "\n")) {
					t.Errorf("%s: the reason is no short line: %d bytes", d, len(err.Error()))
				}
			}
		})
	}
}

func TestOpenRefusesOptions(t *testing.T) {
	for _, o := range []Options{
		{Threads: -1},
		{Threads: MaxThreads + 1},
		{Delegate: "gpu"},
		{Delegate: External},
	} {
		var r *Refusal
		if _, err := Open(nil, o); !errors.As(err, &r) || r.Kind != KindDelegate {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestDamagedModelsAreRefused(t *testing.T) {
	whole := sample(t, "pretrainedResnet_quant.tflite")
	damaged := map[string][]byte{"empty": {}, "identifier only": []byte("\x08\x00\x00\x00TFL3")}
	cuts := 0
	for n := 0; n < len(whole); n += 1 + len(whole)/400 {
		if _, err := Open(whole[:n:n], Options{}); err == nil {
			t.Errorf("opened a model cut at %d of %d bytes", n, len(whole))
		}
		cuts++
	}
	if cuts < 300 {
		t.Fatalf("only %d cuts tried", cuts)
	}
	x := uint32(1)
	for i := range 64 {
		b := make([]byte, 64<<(i%8))
		for j := range b {
			x = x*1664525 + 1013904223
			b[j] = byte(x >> 24)
		}
		if i%2 == 1 {
			copy(b, "\x1c\x00\x00\x00TFL3")
		}
		damaged[string(rune('a'+i))] = b
	}
	for name, b := range damaged {
		var r *Refusal
		if _, err := Open(b, Options{}); !errors.As(err, &r) || r.Kind != KindModel {
			t.Errorf("%s: %v", name, err)
		}
	}
}
