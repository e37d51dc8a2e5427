package delta_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/droverhq/drover/infer/modelfile"
	"github.com/droverhq/drover/ota/delta"
)

// forged writes a delta whose header fits the base and whose streams are free.
func forged(base []byte, size uint64, a, b []byte) []byte {
	sum := sha256.Sum256(base)
	out := append([]byte("DRVd\x01"), sum[:8]...)
	out = append(out, make([]byte, 16)...)
	for _, n := range []uint64{uint64(len(base)), size, uint64(len(a)), uint64(len(b))} {
		out = binary.AppendUvarint(out, n)
	}
	return append(append(out, a...), b...)
}

// bounded takes so many bytes and no more.
type bounded struct{ left int }

var errFull = errors.New("full")

func (w *bounded) Write(p []byte) (int, error) {
	if len(p) > w.left {
		return 0, errFull
	}
	w.left -= len(p)
	return len(p), nil
}

func frame(size uint64, raw []byte) []byte {
	out := binary.AppendUvarint(nil, size)
	return append(binary.AppendUvarint(out, uint64(len(raw))), raw...)
}

func compressed(t *testing.T, content []byte, o ...zstd.EOption) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil, o...)
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	return e.EncodeAll(content, nil)
}

// lzOnly is stream A of one operation that takes everything from stream B.
func lzOnly(t *testing.T, size int) []byte {
	t.Helper()
	// Any text that zstd alone serves gives such a stream.
	d, err := delta.Make(nil, bytes.Repeat([]byte("words "), size/6+1)[:size])
	if err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(d[4+1+8+16:])
	var n [4]uint64
	for i := range n {
		if n[i], err = binary.ReadUvarint(r); err != nil {
			t.Fatal(err)
		}
	}
	at := len(d) - r.Len()
	if n[3] == 0 {
		t.Fatal("no zstd in it")
	}
	return d[at:][:n[2]]
}

// TestHostile offers what no Make would write. Nothing of it may take much
// memory, write more than it said, or end without an error.
func TestHostile(t *testing.T) {
	base := random(5000, 1)
	const size = 100_000
	a := lzOnly(t, size)
	bomb := compressed(t, make([]byte, 64<<20))
	huge := compressed(t, make([]byte, 8<<20), zstd.WithSingleSegment(true))
	short := compressed(t, make([]byte, 100))
	for _, c := range []struct {
		name string
		d    []byte
		want error
	}{
		{"empty", nil, delta.ErrFormat},
		{"magic alone", []byte("DRVd"), delta.ErrFormat},
		{"another version", append([]byte("DRVd\x02"), make([]byte, 60)...), delta.ErrFormat},
		{"endless numbers", append([]byte("DRVd\x01"), bytes.Repeat([]byte{0xff}, 100)...), delta.ErrFormat},
		{"a target too large", forged(base, delta.MaxSize+1, nil, nil), delta.ErrFormat},
		{"a huge target of nothing", forged(base, delta.MaxSize, nil, nil), nil},
		{"a huge target of ones", forged(base, delta.MaxSize, bytes.Repeat([]byte{0xff}, 100), nil), nil},
		{"frames that are not there", forged(base, size, a, nil), delta.ErrFormat},
		{"a frame of no bytes", forged(base, size, a, frame(0, short)), delta.ErrFormat},
		{"a frame too large", forged(base, size, a, frame(1<<21, short)), delta.ErrFormat},
		{"a frame longer than the stream", forged(base, size, a, frame(size, nil)[:3]), delta.ErrFormat},
		{"a frame of rubbish", forged(base, size, a, frame(size, random(500, 1))), delta.ErrFormat},
		{"a frame that gives less", forged(base, size, a, frame(size, short)), delta.ErrFormat},
		{"a frame that unpacks to 64 MiB", forged(base, size, a, frame(size, bomb)), delta.ErrFormat},
		{"a frame that says 8 MiB", forged(base, size, a, frame(size, huge)), delta.ErrFormat},
		{"a frame to be skipped", forged(base, size, a, frame(size, []byte{0x50, 0x2a, 0x4d, 0x18, 0xff, 0xff, 0xff, 0x7f})), delta.ErrFormat},
		{"a frame with another dictionary", forged(base, size, a, frame(size, compressed(t, make([]byte, size), zstd.WithEncoderDictRaw(9, base)))), delta.ErrFormat},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := delta.Apply(base, bytes.NewReader(c.d), int64(len(c.d)), &bounded{1 << 20})
			runtime.ReadMemStats(&after)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("%v, want %v", err, c.want)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > 8<<20 {
				t.Errorf("%d bytes allocated", n)
			}
		})
	}
}

func FuzzApply(f *testing.F) {
	base := model(f, "one", layer{"a", modelfile.Int8, weights(3000, 1)}, layer{"b", modelfile.Float32, weights(400, 2)})
	for _, target := range [][]byte{
		model(f, "one", layer{"a", modelfile.Int8, step(weights(3000, 1), 9)}, layer{"b", modelfile.Float32, step(weights(400, 2), 40)}),
		model(f, "two", layer{"x", modelfile.Int8, weights(700, 8)}),
		bytes.Repeat([]byte("words "), 500), base,
	} {
		d, err := delta.Make(base, target)
		if err != nil || len(d) == 0 {
			f.Fatalf("seed of %d bytes: %v", len(d), err)
		}
		f.Add(d)
	}
	f.Fuzz(func(t *testing.T, d []byte) {
		size, err := delta.TargetSize(bytes.NewReader(d), int64(len(d)))
		const room = 1 << 18
		w := &bounded{room}
		if aerr := delta.Apply(base, bytes.NewReader(d), int64(len(d)), w); aerr == nil && (err != nil || int64(room-w.left) != size) {
			t.Errorf("%d bytes written, %d said, %v", room-w.left, size, err)
		}
		if int64(room-w.left) > max(0, size) {
			t.Errorf("%d bytes written, %d said", room-w.left, size)
		}
	})
}

func FuzzMake(f *testing.F) {
	m := model(f, "one", layer{"a", modelfile.Int8, weights(300, 1)})
	f.Add([]byte("base"), []byte("target"))
	f.Add(m, step(m, 10))
	f.Fuzz(func(t *testing.T, base, target []byte) {
		if len(base) > 1<<16 || len(target) > 1<<16 {
			return
		}
		both(t, base, target)
	})
}
