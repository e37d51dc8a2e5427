//go:build cgo

package tflite

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

func TestInvokeWorksOnTensorMemory(t *testing.T) {
	it, err := Open(sample(t, "pretrainedResnet_quant.tflite"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer it.Close()
	outputs := map[string]bool{}
	for _, v := range []byte{0, 0x80, 0x7f, 0} {
		for i := range it.Input() {
			it.Input()[i] = v + byte(i*int(v))
		}
		if err := it.Invoke(); err != nil {
			t.Fatal(err)
		}
		outputs[string(it.Output())] = true
	}
	if len(outputs) != 3 {
		t.Errorf("%d different outputs of 3 different inputs, one of them twice", len(outputs))
	}
	if n := testing.AllocsPerRun(10, func() { it.Invoke() }); n != 0 {
		t.Errorf("Invoke allocates %v times", n)
	}
}

func TestThreadsAndDelegatesAgree(t *testing.T) {
	model := sample(t, "pretrainedResnet_quant.tflite")
	var want []byte
	for _, o := range []Options{{Delegate: Builtin}, {Delegate: Builtin, Threads: 2}, {Threads: 1}, {Threads: 2}} {
		it, err := Open(model, o)
		if err != nil {
			t.Fatal(err)
		}
		for i := range it.Input() {
			it.Input()[i] = byte(i * 7)
		}
		if err := it.Invoke(); err != nil {
			t.Fatal(err)
		}
		got := bytes.Clone(it.Output())
		it.Close()
		if want == nil {
			want = got
		}
		for i := range got {
			if d := int(int8(got[i])) - int(int8(want[i])); d < -2 || d > 2 {
				t.Errorf("%+v: output %d is %d, built-in kernels say %d", o, i, int8(got[i]), int8(want[i]))
			}
		}
	}
}

// go-tflite's NewModel would keep a copy of every model for ever.
func TestCloseFreesEverything(t *testing.T) {
	model := sample(t, "vww_96_int8.tflite")
	cycle := func(n int) {
		for range n {
			it, err := Open(model, Options{})
			if err != nil {
				t.Fatal(err)
			}
			it.Close()
			it.Close()
		}
	}
	cycle(20)
	before := resident(t)
	cycle(100)
	if grown := resident(t) - before; grown > len(model)*20 {
		t.Errorf("100 × open and close of a model of %d bytes: %d bytes more are resident", len(model), grown)
	}
}

func resident(t *testing.T) int {
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Skip(err)
	}
	pages := 0
	for _, c := range strings.Fields(string(b))[1] {
		pages = pages*10 + int(c-'0')
	}
	return pages * os.Getpagesize()
}

func BenchmarkInvoke(b *testing.B) {
	for _, name := range []string{"mobilenet_v2_1.0_224_quant", "tf2_mobilenet_v2_1.0_224_ptq", "pretrainedResnet_quant", "vww_96_int8"} {
		for _, d := range []Delegate{Builtin, XNNPACK} {
			b.Run(name+"/"+string(d), func(b *testing.B) {
				it, err := Open(sample(b, name+".tflite"), Options{Delegate: d})
				if err != nil {
					b.Fatal(err)
				}
				defer it.Close()
				for b.Loop() {
					if err := it.Invoke(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
