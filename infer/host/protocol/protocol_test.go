package protocol

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/infer"
)

func sampleResult() Result {
	return Result{
		Source: 3, Status: OK, ID: 1 << 40, CapturedNs: 5_000_000_000, StartNs: 5_001_000_000,
		PrepNs: 120_000, InvokeNs: 6_500_000, Dropped: 2, Data: []byte{0, 127, 255},
	}
}

func TestResultRoundTrip(t *testing.T) {
	want := sampleResult()
	b := want.Append([]byte("before"))
	if len(b) != len("before")+ResultHeader+len(want.Data) {
		t.Fatalf("%d bytes", len(b))
	}
	var got Result
	more, err := got.Decode(b[len("before"):])
	if err != nil || more != 0 {
		t.Fatal(more, err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	// The data may travel apart.
	more, err = got.Decode(b[len("before") : len("before")+ResultHeader])
	if err != nil || more != 3 || len(got.Data) != 0 {
		t.Errorf("header alone: %d more, %v, %d bytes", more, err, len(got.Data))
	}
}

func TestResultRefused(t *testing.T) {
	sample := sampleResult()
	good := sample.Append(nil)
	set := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"half a header":     good[:ResultHeader/2],
		"data cut":          good[:len(good)-1],
		"data too long":     append(bytes.Clone(good), 0),
		"unknown status":    set(4, byte(TooOld)+1),
		"captured negative": set(23, 0x80),
		"started negative":  set(31, 0x80),
		"prep negative":     set(39, 0x80),
		"invoke negative":   set(47, 0x80),
	} {
		var r Result
		if _, err := r.Decode(b); !errors.Is(err, ErrResult) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestResultDoesNotAllocate(t *testing.T) {
	r := sampleResult()
	buf := make([]byte, 0, 256)
	var back Result
	if n := testing.AllocsPerRun(100, func() {
		buf = r.Append(buf[:0])
		if _, err := back.Decode(buf); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestControlRoundTrip(t *testing.T) {
	q := infer.Quant{Scales: []float32{0.0078125}, ZeroPoints: []int32{128}}
	want := Loaded{
		Contract: infer.Contract{
			Input:  infer.TensorSpec{Name: "input", Shape: []int{1, 224, 224, 3}, DType: infer.Uint8, Quant: q},
			Output: infer.TensorSpec{Shape: []int{1, 1001}, DType: infer.Uint8, Quant: infer.Quant{Scales: []float32{0.00390625}, ZeroPoints: []int32{0}}},
		},
		Delegate: XNNPACK, Fallback: "why", LoadMicros: 1, WarmMicros: 2,
	}
	b, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Loaded
	if err := Decode(b, &got); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestControlRefused(t *testing.T) {
	for _, tc := range []struct{ payload, want string }{
		{``, "EOF"},
		{`{"id":1,"what":"frame","bytes":1`, "EOF"},
		{`{"id":1}{"id":2}`, "bytes behind"},
		{`{"id":1} x`, "bytes behind"},
		{`{"id":-1}`, "cannot unmarshal"},
		{`{"id":1,"colour":2}`, `unknown field "colour"`},
		{`[]`, "cannot unmarshal"},
	} {
		var r Run
		if err := Decode([]byte(tc.payload), &r); !errors.Is(err, ErrControl) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, expected %q", tc.payload, err, tc.want)
		}
	}
}

// What is decoded can be encoded again to the same bytes.
func FuzzResult(f *testing.F) {
	sample := sampleResult()
	whole := sample.Append(nil)
	message := Result{Source: RunSource, Status: BadFrame, ID: 1, Data: []byte("too wide")}
	for _, seed := range [][]byte{whole, whole[:ResultHeader], message.Append(nil), bytes.Repeat([]byte{0xff}, ResultHeader)} {
		if len(seed) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r Result
		more, err := r.Decode(b)
		if err != nil {
			if !errors.Is(err, ErrResult) {
				t.Fatal(err)
			}
			return
		}
		if more < 0 || (more > 0 && len(r.Data) > 0) {
			t.Fatalf("%d more and %d bytes", more, len(r.Data))
		}
		if more == 0 && !bytes.Equal(r.Append(nil), b) {
			t.Fatalf("%x became %+v", b, r)
		}
	})
}

// No payload makes the decoder panic, and what it takes survives a round trip.
func FuzzControl(f *testing.F) {
	for _, seed := range []string{
		`{"program":"1","tflite":"2.9.0","opencv":"4.6.0","cpu":"x"}`,
		`{"seccomp":true,"gaps":["a"]}`,
		`{"contract":{"input":{"shape":[1,2,2,1],"dtype":"uint8","quant":{"scales":[1],"zero_points":[0]}},"output":{"shape":[1,3],"dtype":"uint8","quant":{}}},"delegate":"builtin","load_us":1,"warm_us":2}`,
		`{"kind":"model","message":"no"}`,
		`{"message":"fault"}`,
		`{"id":1,"what":"frame","width":2,"height":2,"stride":2,"format":2,"bytes":4}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(Hello), new(Sealed), new(Loaded), new(Refused), new(Fault), new(Load), new(Run), new(Attach), new(Detach)} {
			if err := Decode(b, v); err != nil {
				if !errors.Is(err, ErrControl) {
					t.Fatal(err)
				}
				continue
			}
			again, err := Encode(v)
			if err != nil {
				t.Fatal(err)
			}
			if err := Decode(again, v); err != nil {
				t.Fatalf("%T of %q: %v", v, b, err)
			}
			if l, ok := v.(*Loaded); ok {
				_ = l.Contract.Check() // must not panic on any shape
			}
		}
	})
}
