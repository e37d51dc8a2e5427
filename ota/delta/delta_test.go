package delta_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
	"github.com/droverhq/drover/ota/delta"
)

func apply(base, d []byte) ([]byte, error) {
	var out bytes.Buffer
	err := delta.Apply(base, bytes.NewReader(d), int64(len(d)), &out)
	return out.Bytes(), err
}

// both makes a delta, applies it, and wants the target.
func both(t interface{ Fatalf(string, ...any) }, base, target []byte) []byte {
	d, err := delta.Make(base, target)
	if err != nil {
		t.Fatalf("make: %v", err)
	}
	got, err := apply(base, d)
	if err != nil || !bytes.Equal(got, target) {
		t.Fatalf("apply of %d bytes: %d bytes of %d, %v", len(d), len(got), len(target), err)
	}
	if n, err := delta.TargetSize(bytes.NewReader(d), int64(len(d))); err != nil || n != int64(len(target)) {
		t.Fatalf("the header says %d bytes, %v", n, err)
	}
	return d
}

func random(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 1))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// weights are normal numbers as bytes.
func weights(n int, seed uint64) []byte {
	rng := rand.New(rand.NewPCG(seed, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(int8(max(-127, min(127, 30*rng.NormFloat64()))))
	}
	return b
}

// layer is a tensor of a model for tests.
type layer struct {
	name string
	kind modelfile.Type
	data []byte
}

// model writes a file of constant tensors; what it computes does not matter.
func model(t interface{ Fatalf(string, ...any) }, description string, layers ...layer) []byte {
	b := modelfile.NewBuilder(description)
	in := b.Tensor(modelfile.TensorDef{Name: "in", Shape: []int{1, 4}, Type: modelfile.Float32})
	axes := b.Tensor(modelfile.TensorDef{Name: "axes", Shape: []int{1}, Type: modelfile.Int32, Data: []byte{1, 0, 0, 0}})
	out := b.Tensor(modelfile.TensorDef{Name: "out", Shape: []int{1}, Type: modelfile.Float32})
	for _, l := range layers {
		b.Tensor(modelfile.TensorDef{
			Name: l.name, Shape: []int{len(l.data) / l.kind.Size()}, Type: l.kind, Data: l.data,
			Quant: infer.Quant{Scales: []float32{0.5}, ZeroPoints: []int32{0}},
		})
	}
	b.Operator(modelfile.Mean, modelfile.ReducerOptions{}, []int{in, axes}, []int{out})
	b.IO([]int{in}, []int{out})
	raw, err := b.Bytes()
	if err != nil {
		t.Fatalf("model: %v", err)
	}
	return raw
}

func step(b []byte, every int) []byte {
	out := slices.Clone(b)
	for i := 0; i < len(out); i += every {
		out[i]++
	}
	return out
}

// TestSizes says what each kind of change costs.
func TestSizes(t *testing.T) {
	a, b := weights(50_000, 1), weights(20_000, 2)
	bias := bytes.Repeat([]byte{0x10, 0x27, 0, 0}, 500)
	moved := slices.Clone(bias)
	for i := 0; i < len(moved); i += 4 {
		moved[i] += byte(i % 7)
	}
	base := model(t, "one", layer{"a", modelfile.Int8, a}, layer{"b", modelfile.Int8, b}, layer{"bias", modelfile.Int32, bias})
	text := bytes.Repeat([]byte("the same words again and again, "), 3000)
	for _, c := range []struct {
		name         string
		base, target []byte
		most         int
	}{
		{"nothing changed", base, base, 60},
		{"one weight in a hundred moved", base, model(t, "one", layer{"a", modelfile.Int8, step(a, 100)}, layer{"b", modelfile.Int8, b}, layer{"bias", modelfile.Int32, bias}), 700},
		{"a tensor of 20,000 bytes is new", base, model(t, "one", layer{"a", modelfile.Int8, a}, layer{"b", modelfile.Int8, weights(20_000, 3)}, layer{"bias", modelfile.Int32, bias}), 18_200},
		{"tensors changed places", base, model(t, "another", layer{"b", modelfile.Int8, b}, layer{"bias", modelfile.Int32, bias}, layer{"a", modelfile.Int8, a}), 700},
		{"a tensor was dropped", base, model(t, "one", layer{"a", modelfile.Int8, a}, layer{"bias", modelfile.Int32, bias}), 700},
		{"biases moved", base, model(t, "one", layer{"a", modelfile.Int8, a}, layer{"b", modelfile.Int8, b}, layer{"bias", modelfile.Int32, moved}), 350},
		{"tensors under other names", base, model(t, "one", layer{"x", modelfile.Int8, step(a, 100)}, layer{"y", modelfile.Int8, b}, layer{"z", modelfile.Int32, bias}), 900},
		{"no models, one byte inserted", random(300_000, 1), slices.Insert(random(300_000, 1), 1000, 7), 200},
		{"no models, bytes moved", random(300_000, 1), step(random(300_000, 1), 1000), 900},
		{"no base, text", nil, text, 200},
		{"a base that is no model", text, base, 66_000},
		{"a target that is no model", base, text, 200},
		{"nothing in common", random(100_000, 5), random(100_000, 6), 100_100},
		{"no target", base, nil, 60},
	} {
		t.Run(c.name, func(t *testing.T) {
			if d := both(t, c.base, c.target); len(d) > c.most {
				t.Errorf("%d bytes, allowed %d (target %d)", len(d), c.most, len(c.target))
			}
		})
	}
}

func TestRoundTrips(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := random(rapid.IntRange(0, 5000).Draw(t, "size"), rapid.Uint64().Draw(t, "seed"))
		target := slices.Clone(base)
		for range rapid.IntRange(0, 5).Draw(t, "edits") {
			at := rapid.IntRange(0, len(target)).Draw(t, "at")
			switch rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0:
				target = slices.Insert(target, at, rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "insert")...)
			case 1:
				target = slices.Delete(target, at, min(len(target), at+rapid.IntRange(0, 300).Draw(t, "cut")))
			case 2:
				for i := at; i < len(target); i += rapid.IntRange(1, 50).Draw(t, "every") {
					target[i] += byte(rapid.IntRange(-3, 3).Draw(t, "step"))
				}
			case 3:
				target = append(target, base[min(at, len(base)):]...)
			}
		}
		both(t, base, target)
	})
}

func TestRoundTripsOfModels(t *testing.T) {
	kinds := []modelfile.Type{modelfile.Int8, modelfile.Uint8, modelfile.Int16, modelfile.Int32, modelfile.Float32, modelfile.Int64}
	rapid.Check(t, func(t *rapid.T) {
		layers := func(n int) (out []layer) {
			for i := range n {
				k := kinds[rapid.IntRange(0, len(kinds)-1).Draw(t, "kind")]
				data := weights(k.Size()*rapid.IntRange(1, 400).Draw(t, "elements"), rapid.Uint64().Draw(t, "seed"))
				out = append(out, layer{fmt.Sprint("t", i), k, data})
			}
			return out
		}
		a := layers(rapid.IntRange(0, 6).Draw(t, "tensors"))
		b := slices.Clone(a)
		for i := range b {
			switch rapid.IntRange(0, 3).Draw(t, "edit") {
			case 0:
				b[i].data = step(b[i].data, rapid.IntRange(1, 40).Draw(t, "every"))
			case 1:
				b[i] = layers(1)[0]
			case 2:
				j := rapid.IntRange(0, i).Draw(t, "swap")
				b[i], b[j] = b[j], b[i]
			}
		}
		both(t, model(t, "a", a...), model(t, rapid.SampledFrom([]string{"a", "longer"}).Draw(t, "name"), b...))
	})
}

// TestDamage changes, cuts and lengthens deltas of every kind: never anything
// but the target comes out as if it were right.
func TestDamage(t *testing.T) {
	base := model(t, "one", layer{"a", modelfile.Int8, weights(5000, 1)}, layer{"b", modelfile.Float32, weights(4000, 2)})
	for name, target := range map[string][]byte{
		"moved": model(t, "one", layer{"a", modelfile.Int8, step(weights(5000, 1), 9)}, layer{"b", modelfile.Float32, step(weights(4000, 2), 40)}),
		"new":   model(t, "two", layer{"x", modelfile.Int8, weights(3000, 8)}, layer{"y", modelfile.Uint8, random(500, 1)}),
		"text":  bytes.Repeat([]byte("words "), 900),
	} {
		d := both(t, base, target)
		for _, other := range [][]byte{nil, base[1:], append(slices.Clone(base), 0), step(base, 3000), target} {
			if _, err := apply(other, d); !errors.Is(err, delta.ErrBase) {
				t.Errorf("%s: another base: %v", name, err)
			}
		}
		for n := 0; n < len(d); n += 1 + n/50 {
			if _, err := apply(base, d[:n]); !errors.Is(err, delta.ErrFormat) {
				t.Fatalf("%s: cut to %d of %d bytes: %v", name, n, len(d), err)
			}
		}
		if _, err := apply(base, append(slices.Clone(d), 0)); !errors.Is(err, delta.ErrFormat) {
			t.Errorf("%s: a byte more: %v", name, err)
		}
		for at := range d {
			bad := slices.Clone(d)
			bad[at] ^= 1 << (at % 8)
			got, err := apply(base, bad)
			if err == nil && !bytes.Equal(got, target) {
				t.Fatalf("%s: byte %d changed: wrong bytes without an error", name, at)
			}
			if err != nil && !errors.Is(err, delta.ErrFormat) && !errors.Is(err, delta.ErrBase) && !errors.Is(err, delta.ErrTarget) {
				t.Fatalf("%s: byte %d changed: %v has no kind", name, at, err)
			}
			if len(got) > delta.MaxSize {
				t.Fatalf("%s: byte %d changed: %d bytes", name, at, len(got))
			}
		}
	}
}

// failing is a reader and writer whose errors must come through.
type failing struct{ after int }

var errFailing = errors.New("cable pulled")

func (f *failing) Write(p []byte) (int, error) {
	if f.after -= len(p); f.after < 0 {
		return 0, errFailing
	}
	return len(p), nil
}

func (f *failing) ReadAt(p []byte, off int64) (int, error) { return 0, errFailing }

func TestErrorsOfReaderAndWriterComeThrough(t *testing.T) {
	base, target := random(200_000, 1), step(random(200_000, 1), 7)
	d := both(t, base, target)
	if err := delta.Apply(base, bytes.NewReader(d), int64(len(d)), &failing{100_000}); !errors.Is(err, errFailing) {
		t.Errorf("writer: %v", err)
	}
	if err := delta.Apply(base, &failing{}, 100, io.Discard); !errors.Is(err, errFailing) {
		t.Errorf("reader: %v", err)
	}
}

// TestMemory counts all that Apply allocates: it cannot hold more at a time.
func TestMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("makes deltas of models of 9 MiB")
	}
	const most = 8 << 20
	old := random(9<<20, 1)
	for name, c := range map[string][2][]byte{
		"moved":              {weights(9<<20, 1), step(weights(9<<20, 1), 20)},
		"new":                {random(1000, 1), weights(9<<20, 2)},
		"copies of the base": {old, slices.Concat(old[5<<20:], old[:3<<20], []byte("x"), old[1<<20:])},
		"text":               {nil, bytes.Repeat([]byte("the same words again and again, "), 9<<15)},
		"a large delta":      {random(100, 1), random(9<<20, 7)},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := delta.Make(c[0], c[1])
			if err != nil {
				t.Fatal(err)
			}
			in := bytes.NewReader(d)
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			if err := delta.Apply(c[0], in, int64(len(d)), io.Discard); err != nil {
				t.Fatal(err)
			}
			runtime.ReadMemStats(&after)
			n := after.TotalAlloc - before.TotalAlloc
			t.Logf("target of %d, delta of %d bytes: %d KiB allocated", len(c[1]), len(d), n>>10)
			if n > most {
				t.Errorf("%d bytes allocated, allowed %d", n, most)
			}
		})
	}
}
