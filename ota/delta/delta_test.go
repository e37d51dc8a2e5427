package delta_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/droverhq/drover/ota/delta"
)

func TestScratch(t *testing.T) {
	read := func(n string) []byte {
		b, err := os.ReadFile(filepath.Join("../../../shared/data/models", n))
		if err != nil {
			t.Skip(err)
		}
		return b
	}
	v2, tf2 := read("mobilenet_v2_1.0_224_quant.tflite"), read("tf2_mobilenet_v2_1.0_224_ptq.tflite")
	try := func(name string, a, b []byte) {
		t0 := time.Now()
		d, err := delta.Make(a, b)
		if err != nil {
			t.Fatal(err)
		}
		t1 := time.Now()
		var out bytes.Buffer
		if err := delta.Apply(a, bytes.NewReader(d), int64(len(d)), &out); err != nil {
			t.Fatal(name, err)
		}
		t.Log(name, len(a), len(b), len(d), t1.Sub(t0), time.Since(t1), bytes.Equal(out.Bytes(), b))
	}
	try("same", v2, v2)
	try("c", v2, tf2)
	_ = rand.N[int]
}
