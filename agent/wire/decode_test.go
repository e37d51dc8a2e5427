package wire_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/droverhq/drover/agent/wire"
)

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct {
		name, text string
		strict     bool
		want       error
	}{
		{"good", `{"v":1,"online":true}`, true, nil},
		{"an unknown field in a message", `{"v":1,"mood":"good"}`, false, nil},
		{"an unknown field in a manifest", `{"v":1,"mood":"good"}`, true, wire.ErrMalformed},
		{"a newer version", `{"v":2,"online":true}`, false, wire.ErrVersion},
		{"an older version", `{"v":0}`, false, wire.ErrVersion},
		{"no version", `{"online":true}`, false, wire.ErrVersion},
		{"version null", `{"v":null}`, false, wire.ErrVersion},
		{"version as text", `{"v":"1"}`, false, wire.ErrMalformed},
		{"nothing", ``, false, wire.ErrMalformed},
		{"null", `null`, false, wire.ErrVersion},
		{"a list", `[]`, false, wire.ErrMalformed},
		{"cut", `{"v":1,"online":tr`, false, wire.ErrMalformed},
		{"two messages", `{"v":1}{"v":1}`, false, wire.ErrMalformed},
		{"bytes behind", `{"v":1} x`, false, wire.ErrMalformed},
		{"space behind", "{\"v\":1} \n", false, nil},
		{"another type", `{"v":1,"online":3}`, false, wire.ErrMalformed},
		{"deep nesting", strings.Repeat("[", 20000), false, wire.ErrMalformed},
	} {
		decode := wire.Decode
		if c.strict {
			decode = wire.DecodeStrict
		}
		var o wire.Online
		if err := decode([]byte(c.text), wire.MaxMessage, &o); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestDecodeLimit(t *testing.T) {
	text := `{"v":1}`
	var o wire.Online
	if err := wire.Decode([]byte(text), len(text), &o); err != nil {
		t.Errorf("exactly the limit: %v", err)
	}
	if err := wire.Decode([]byte(text), len(text)-1, &o); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("one byte over: %v", err)
	}
	for name, err := range map[string]error{
		"manifest": second(wire.DecodeManifest(make([]byte, wire.MaxManifest+1))),
		"plan":     second(wire.DecodePlan(make([]byte, wire.MaxRollouts+1))),
		"golden":   second(wire.DecodeGolden(make([]byte, wire.MaxGolden+1), spec().Contract)),
	} {
		if !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestMetadataLimits(t *testing.T) {
	for _, role := range []string{"root", "targets", "models", "rollouts", "snapshot", "timestamp"} {
		if n := wire.MaxMetadata(role); n < 1 || n > wire.MaxMessage {
			t.Errorf("%s may have %d bytes, a message holds %d", role, n, wire.MaxMessage)
		}
	}
	if n := wire.MaxMetadata("mirrors"); n != 0 {
		t.Errorf("an unknown role may have %d bytes", n)
	}
	// Current carries both in base64, with some JSON around.
	if n := (wire.MaxSnapshot+wire.MaxTimestamp)*4/3 + 64; n > wire.MaxCurrent {
		t.Errorf("the largest snapshot and timestamp take %d bytes, current may have %d", n, wire.MaxCurrent)
	}
}

func TestGetChunks(t *testing.T) {
	for _, c := range []struct {
		first int
		want  []byte
		chunk []int
	}{
		{0, nil, nil}, {0, []byte{0}, nil}, {0, []byte{1}, []int{0}}, {8, []byte{0x03, 0x80}, []int{8, 9, 23}},
	} {
		got := (&wire.Get{First: c.first, Want: c.want}).Chunks()
		if len(got) != len(c.chunk) {
			t.Errorf("%x from %d: %v, want %v", c.want, c.first, got, c.chunk)
			continue
		}
		for i := range got {
			if got[i] != c.chunk[i] {
				t.Errorf("%x from %d: %v, want %v", c.want, c.first, got, c.chunk)
			}
		}
	}
	all := make([]byte, 4096)
	for i := range all {
		all[i] = 0xff
	}
	if got := (&wire.Get{Want: all}).Chunks(); len(got) != wire.MaxWant*8 {
		t.Errorf("an oversized request gives %d chunks, allowed are %d", len(got), wire.MaxWant*8)
	}
}

func FuzzDecode(f *testing.F) {
	for _, e := range examples() {
		b := wire.Encode(e.value)
		if len(b) == 0 {
			f.Fatal("empty seed")
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, v := range []any{new(wire.Online), new(wire.State), new(wire.Event), new(wire.Telemetry), new(wire.Get), new(wire.Current), new(wire.EnrollRequest), new(wire.EnrollResponse)} {
			if err := wire.Decode(b, wire.MaxMessage, v); err != nil {
				if !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrVersion) && !errors.Is(err, wire.ErrTooLarge) {
					t.Errorf("an error of no kind: %v", err)
				}
				continue
			}
			if g, ok := v.(*wire.Get); ok && len(g.Chunks()) > wire.MaxWant*8 {
				t.Errorf("%d chunks", len(g.Chunks()))
			}
			wire.Encode(v)
		}
	})
}
