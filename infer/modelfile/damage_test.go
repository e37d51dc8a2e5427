package modelfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/droverhq/drover/infer/modelfile"
)

// kinds are all the ways in which Parse may say no.
var kinds = []error{modelfile.ErrNotModel, modelfile.ErrTruncated, modelfile.ErrCorrupt, modelfile.ErrLimit, modelfile.ErrUnsupported}

// inspect parses hostile bytes and uses everything of a result, which must not
// panic and must hang together.
func inspect(t *testing.T, b []byte) error {
	t.Helper()
	m, err := modelfile.Parse(b)
	if err != nil {
		for _, k := range kinds {
			if errors.Is(err, k) {
				return err
			}
		}
		t.Fatalf("error of no known kind: %v", err)
	}
	for i, x := range m.Tensors {
		if x.Buffer != 0 && x.Buffer >= len(m.Buffers) {
			t.Fatalf("tensor %d names buffer %d of %d", i, x.Buffer, len(m.Buffers))
		}
		for _, d := range x.Shape {
			if d < 0 {
				t.Fatalf("tensor %d has shape %v", i, x.Shape)
			}
		}
	}
	for i, o := range m.Operators {
		if o.Code >= len(m.Codes) {
			t.Fatalf("operator %d has code %d of %d", i, o.Code, len(m.Codes))
		}
		for _, in := range append(o.Inputs, o.Outputs...) {
			if in >= len(m.Tensors) {
				t.Fatalf("operator %d names tensor %d of %d", i, in, len(m.Tensors))
			}
		}
	}
	for _, x := range m.Buffers {
		if len(x.Data) > 0 && !bytes.Equal(x.Data, b[x.Offset:x.Offset+len(x.Data)]) {
			t.Fatal("buffer is not where it says")
		}
	}
	_, _ = m.Contract()
	_, _ = m.Labels()
	_, _, _ = m.Normalization()
	_ = m.CustomOps()
	return nil
}

// small is a complete model with every part the writer knows.
func small(t testing.TB) []byte {
	t.Helper()
	b, err := everything().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCutsNeverPanic(t *testing.T) {
	b := small(t)
	refused := 0
	for n := range b {
		if inspect(t, b[:n:n]) != nil {
			refused++
		}
	}
	// The rest are cuts in the appended archive, behind the FlatBuffer.
	if refused < len(b)*3/4 {
		t.Errorf("%d of %d cuts refused", refused, len(b))
	}
	for _, name := range []string{"mobilenet_v1_0.25_128_quant.tflite", "tf2_mobilenet_v2_1.0_224_ptq.tflite", "model_invoking_error.tflite"} {
		b := readModel(t, name)
		refused := 0
		for i := range 2000 {
			n := len(b) * i / 2000
			if inspect(t, b[:n:n]) != nil {
				refused++
			}
		}
		if refused < 1800 {
			t.Errorf("%s: %d of 2000 cuts refused", name, refused)
		}
	}
}

func TestFlippedBitsNeverPanic(t *testing.T) {
	b := small(t)
	refused := 0
	for i := range b {
		for bit := i % 3; bit < 8; bit += 3 {
			c := bytes.Clone(b)
			c[i] ^= 1 << bit
			if inspect(t, c) != nil {
				refused++
			}
		}
	}
	if refused == 0 {
		t.Error("no flipped bit was ever noticed")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	whole := readModel(t, "pretrainedResnet_quant.tflite")
	refused = 0
	for range 1500 {
		c := bytes.Clone(whole)
		for range 1 + rng.IntN(8) {
			c[rng.IntN(len(c))] ^= 1 << rng.IntN(8)
		}
		if inspect(t, c) != nil {
			refused++
		}
	}
	t.Logf("%d of 1500 refused", refused)
}

// Every aligned word is replaced by values that offsets and counts are afraid
// of.
func TestHostileWordsNeverPanic(t *testing.T) {
	b := small(t)
	words := []uint32{0, 1, 3, 4, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffc, uint32(len(b)), uint32(len(b) - 4), 1 << 28}
	tried := 0
	for at := 0; at+4 <= len(b); at += 4 {
		for _, w := range words {
			c := bytes.Clone(b)
			binary.LittleEndian.PutUint32(c[at:], w)
			_ = inspect(t, c)
			tried++
		}
	}
	if tried < 5000 {
		t.Fatalf("only %d tried", tried)
	}
}

func TestParseNamesTheKind(t *testing.T) {
	b := small(t)
	word := func(at int, v uint32) []byte {
		c := bytes.Clone(b)
		binary.LittleEndian.PutUint32(c[at:], v)
		return c
	}
	root := int(binary.LittleEndian.Uint32(b))
	for _, c := range []struct {
		name string
		b    []byte
		want error
	}{
		{"nothing", nil, modelfile.ErrNotModel},
		{"short", []byte("TFL3"), modelfile.ErrNotModel},
		{"text", []byte("this is a text and no model at all"), modelfile.ErrNotModel},
		{"other identifier", append([]byte{8, 0, 0, 0}, "TFL2...."...), modelfile.ErrNotModel},
		{"head only", b[:8], modelfile.ErrTruncated},
		{"half", b[:len(b)/2], modelfile.ErrTruncated},
		{"root beyond the end", word(0, uint32(len(b))), modelfile.ErrTruncated},
		{"root at itself", word(0, 0), modelfile.ErrCorrupt},
		{"root at odd offset", word(0, uint32(root+1)), modelfile.ErrCorrupt},
		{"vtable before the file", word(root, uint32(root+8)), modelfile.ErrCorrupt},
	} {
		if err := inspect(t, c.b); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, wanted %v", c.name, err, c.want)
		}
	}
}

// A few kilobytes whose tables are all the same few ones must not expand into
// gigabytes.
func TestAliasedTablesAreBounded(t *testing.T) {
	b := aliased()
	if err := inspect(t, b); !errors.Is(err, modelfile.ErrLimit) {
		t.Errorf("%d bytes: %v, wanted %v", len(b), err, modelfile.ErrLimit)
	}
}

func FuzzParse(f *testing.F) {
	seeds := [][]byte{small(f), aliased()[:4096]}
	for _, s := range seeds {
		if len(s) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, b []byte) { _ = inspect(t, b) })
}

func TestStringTensorsAreChecked(t *testing.T) {
	words := func(v ...int32) []byte { return int32s(v...) }
	for name, c := range map[string]struct {
		data []byte
		good bool
	}{
		"two strings":        {append(words(2, 16, 18, 19), "abc"...), true},
		"none":               {words(0, 8), true},
		"offset beyond":      {append(words(2, 16, 18, 20), "abc"...), false},
		"falling offsets":    {append(words(2, 16, 15, 19), "abc"...), false},
		"offset in the head": {append(words(1, 4, 13), "a"...), false},
		"too many":           {words(1000, 8), false},
		"negative":           {words(-1, 8), false},
		"short":              {words(0), false},
	} {
		b := modelfile.NewBuilder("")
		x := b.Tensor(modelfile.TensorDef{Name: "x", Shape: []int{1, 2, 2, 1}, Type: modelfile.Uint8})
		b.Tensor(modelfile.TensorDef{Name: "s", Shape: []int{len(c.data)}, Type: modelfile.Bool, Data: c.data})
		b.IO([]int{x}, []int{x})
		file, err := b.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		// The writer writes no strings: find the one byte of the type.
		at := -1
		for i, v := range file {
			if v != byte(modelfile.Bool) {
				continue
			}
			y := bytes.Clone(file)
			y[i] = byte(modelfile.Float16)
			if _, err := modelfile.Parse(y); errors.Is(err, modelfile.ErrCorrupt) && bytes.Contains([]byte(err.Error()), []byte("tensor 1 ")) {
				at = i
			}
		}
		if at < 0 {
			t.Fatal("type of the tensor not found")
		}
		file[at] = byte(modelfile.String)
		if err := inspect(t, file); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLabelsWithoutTheirArchive(t *testing.T) {
	b := small(t)
	at := bytes.Index(b, []byte("PK\x03\x04"))
	if at < 0 {
		t.Fatal("no archive")
	}
	swapped := bytes.ReplaceAll(b, []byte("labels.txt"), []byte("lebals.txt"))
	copy(swapped[:at], b[:at]) // the metadata still names the old one
	for name, c := range map[string][]byte{"cut off": b[:at], "cut within": b[:len(b)-10], "other file": swapped} {
		m, err := modelfile.Parse(c)
		if err != nil {
			t.Errorf("%s: the model itself is whole, yet %v", name, err)
			continue
		}
		if l, err := m.Labels(); !errors.Is(err, modelfile.ErrCorrupt) {
			t.Errorf("%s: labels %q, %v", name, l, err)
		}
	}
}
