package wire_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/droverhq/drover/agent/wire"
)

func TestManifestChecks(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(m *wire.Manifest)
		want error
	}{
		{"good", func(*wire.Manifest) {}, nil},
		{"another version of the format", func(m *wire.Manifest) { m.V = 2 }, wire.ErrVersion},
		{"no model name", func(m *wire.Manifest) { m.Model = "" }, wire.ErrMalformed},
		{"a model name with a slash", func(m *wire.Manifest) { m.Model = "a/b" }, wire.ErrMalformed},
		{"version nought", func(m *wire.Manifest) { m.Version = 0 }, wire.ErrMalformed},
		{"no variant", func(m *wire.Manifest) { m.Variants = nil }, wire.ErrMalformed},
		{"too many variants", func(m *wire.Manifest) {
			for i := range wire.MaxVariants {
				v := m.Variants[0]
				v.Name = "v" + string(rune('a'+i))
				m.Variants = append(m.Variants, v)
			}
		}, wire.ErrMalformed},
		{"two variants of one name", func(m *wire.Manifest) { m.Variants = append(m.Variants, m.Variants[0]) }, wire.ErrMalformed},
		{"variants with other labels", func(m *wire.Manifest) {
			v := m.Variants[0]
			v.Name, v.Spec.Labels = "int8", []string{"shirt", "boot"}
			m.Variants = append(m.Variants, v)
		}, wire.ErrMalformed},
		{"labels fewer than outputs", func(m *wire.Manifest) { m.Variants[0].Spec.Labels = []string{"boot"} }, wire.ErrMalformed},
		{"no digest", func(m *wire.Manifest) { m.Variants[0].Model.Digest = "" }, wire.ErrMalformed},
		{"a digest in capitals", func(m *wire.Manifest) { m.Variants[0].Model.Digest = strings.ToUpper(bigRef().Digest) }, wire.ErrMalformed},
		{"chunk digests cut", func(m *wire.Manifest) { m.Variants[0].Model.Chunks = m.Variants[0].Model.Chunks[:33] }, wire.ErrMalformed},
		{"chunk digests absent", func(m *wire.Manifest) { m.Variants[0].Model.Chunks = nil }, wire.ErrMalformed},
		{"a negative size", func(m *wire.Manifest) { m.Variants[0].Model.Size = -1 }, wire.ErrTooLarge},
		{"a model too large", func(m *wire.Manifest) { m.Variants[0].Model.Size = wire.MaxBlob + 1 }, wire.ErrTooLarge},
		{"golden inputs too large", func(m *wire.Manifest) { m.Variants[0].Golden.Size = wire.MaxGolden + 1 }, wire.ErrTooLarge},
		{"a tolerance too large", func(m *wire.Manifest) { m.Variants[0].Tolerance = 9 }, wire.ErrMalformed},
		{"no delta", func(m *wire.Manifest) { m.Variants[0].Deltas = nil }, nil},
		{"a delta from nowhere", func(m *wire.Manifest) { m.Variants[0].Deltas[0].Base = "" }, wire.ErrMalformed},
		{"a delta from the model itself", func(m *wire.Manifest) { m.Variants[0].Deltas[0].Base = m.Variants[0].Model.Digest }, wire.ErrMalformed},
		{"two deltas from one base", func(m *wire.Manifest) {
			m.Variants[0].Deltas = append(m.Variants[0].Deltas, m.Variants[0].Deltas[0])
		}, wire.ErrMalformed},
		{"too many deltas", func(m *wire.Manifest) { m.Variants[0].Deltas = make([]wire.Delta, wire.MaxDeltas+1) }, wire.ErrMalformed},
		{"a delta as large as the model", func(m *wire.Manifest) { m.Variants[0].Deltas[0].Blob = bigRef() }, wire.ErrTooLarge},
		{"a delta of a chunk digest cut", func(m *wire.Manifest) { m.Variants[0].Deltas[0].Blob.Chunks = make([]byte, 63) }, wire.ErrMalformed},
		{"a delta from an empty base", func(m *wire.Manifest) { m.Variants[0].Deltas[0].Size = 0 }, wire.ErrMalformed},
		{"a delta from a base too large", func(m *wire.Manifest) { m.Variants[0].Deltas[0].Size = wire.MaxBlob + 1 }, wire.ErrMalformed},
		{"a negative budget", func(m *wire.Manifest) { m.Budget.MemoryBytes = -1 }, wire.ErrMalformed},
		{"a report without digest", func(m *wire.Manifest) { m.Report.Digest = "x" }, wire.ErrMalformed},
	} {
		m := manifest()
		c.edit(m)
		if _, err := wire.DecodeManifest(wire.Encode(m)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	unknown := bytes.Replace(wire.Encode(manifest()), []byte(`"v":1`), []byte(`"v":1,"only_if":"x"`), 1)
	if _, err := wire.DecodeManifest(unknown); !errors.Is(err, wire.ErrMalformed) {
		t.Errorf("an unknown field: %v", err)
	}
}

func TestPlanChecks(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(p *wire.Plan)
		want error
	}{
		{"good", func(*wire.Plan) {}, nil},
		{"another version of the format", func(p *wire.Plan) { p.V = 2 }, wire.ErrVersion},
		{"no id", func(p *wire.Plan) { p.ID = "" }, wire.ErrMalformed},
		{"serial nought", func(p *wire.Plan) { p.Serial = 0 }, wire.ErrMalformed},
		{"no release", func(p *wire.Plan) { p.Release = "" }, wire.ErrMalformed},
		{"a release of no version", func(p *wire.Plan) { p.Release = "release/gate" }, wire.ErrMalformed},
		{"a release with leading nought", func(p *wire.Plan) { p.Release = "release/gate/07" }, wire.ErrMalformed},
		{"another path", func(p *wire.Plan) { p.Release = "rollout/gate-7" }, wire.ErrMalformed},
		{"as many devices as allowed", func(p *wire.Plan) { p.Selector.Devices = make([]string, wire.MaxListed) }, nil},
		{"one device more", func(p *wire.Plan) { p.Selector.Devices = make([]string, wire.MaxListed+1) }, wire.ErrTooLarge},
		{"more than whole", func(p *wire.Plan) { p.Selector.Threshold = wire.Whole + 1 }, wire.ErrMalformed},
		{"no probation", func(p *wire.Plan) { p.Probation.Frames = 0 }, wire.ErrMalformed},
		{"an endless probation", func(p *wire.Plan) { p.Probation.Seconds = 7*24*3600 + 1 }, wire.ErrMalformed},
	} {
		p := plan()
		c.edit(p)
		if _, err := wire.DecodePlan(wire.Encode(p)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestSelector(t *testing.T) {
	labels := map[string]string{"site": "north", "kind": "door"}
	for _, c := range []struct {
		name string
		sel  wire.Selector
		want bool
	}{
		{"empty", wire.Selector{}, false},
		{"listed", wire.Selector{Devices: []string{"cam-0", "cam-1"}}, true},
		{"another listed", wire.Selector{Devices: []string{"cam-10"}}, false},
		{"a label", wire.Selector{Labels: map[string]string{"site": "north"}}, true},
		{"all labels", wire.Selector{Labels: labels}, true},
		{"one label differs", wire.Selector{Labels: map[string]string{"site": "north", "kind": "gate"}}, false},
		{"a label it has not", wire.Selector{Labels: map[string]string{"floor": ""}}, false},
		{"whole", wire.Selector{Threshold: wire.Whole}, true},
		{"nobody", wire.Selector{Seed: "x", Threshold: 0}, false},
	} {
		if got := c.sel.Matches("cam-1", labels); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

func TestWavesAreNestedAndAboutRight(t *testing.T) {
	const fleet = 4000
	in := func(threshold uint64) (n int, who [fleet]bool) {
		for i := range who {
			who[i] = wire.Selector{Seed: "s", Threshold: threshold}.Matches("cam-"+strings.Repeat("x", i%7)+string(rune('a'+i%26))+string(rune('a'+i/26%26))+string(rune('a'+i/676)), nil)
			if who[i] {
				n++
			}
		}
		return n, who
	}
	var before [fleet]bool
	for _, percent := range []uint64{1, 10, 50, 100} {
		n, who := in(wire.Whole / 100 * percent)
		for i := range who {
			if before[i] && !who[i] {
				t.Fatalf("at %d %% a device fell out", percent)
			}
		}
		if want := fleet * int(percent) / 100; n < want*7/10-5 || n > want*13/10+5 {
			t.Errorf("%d %% selects %d of %d", percent, n, fleet)
		}
		before = who
	}
}

func TestReleasePath(t *testing.T) {
	model, version, err := wire.ParseReleasePath(wire.ReleasePath("gate", 12))
	if err != nil || model != "gate" || version != 12 {
		t.Error(model, version, err)
	}
	for _, bad := range []string{"", "release/gate", "release//1", "release/gate/0", "release/gate/-1", "release/gate/01", "release/gate/1/2", "release/Gate/1", "release/gate/99999999999999999999"} {
		if _, _, err := wire.ParseReleasePath(bad); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestBlobRef(t *testing.T) {
	for _, size := range []int{0, 1, wire.ChunkSize - 1, wire.ChunkSize, wire.ChunkSize + 1, 3 * wire.ChunkSize, 3*wire.ChunkSize + 7} {
		b := bytes.Repeat([]byte{7}, size)
		ref := wire.NewBlobRef(b)
		total := 0
		for i := range ref.Count() {
			chunk := b[i*wire.ChunkSize : i*wire.ChunkSize+ref.ChunkLen(i)]
			total += len(chunk)
			if !ref.CheckChunk(i, chunk) {
				t.Errorf("%d bytes: chunk %d is refused", size, i)
			}
			if len(chunk) > 0 {
				bad := bytes.Clone(chunk)
				bad[len(bad)-1] ^= 1
				if ref.CheckChunk(i, bad) || ref.CheckChunk(i, chunk[1:]) {
					t.Errorf("%d bytes: a wrong chunk %d is taken", size, i)
				}
			}
		}
		if total != size {
			t.Errorf("%d bytes: chunks hold %d", size, total)
		}
		if ref.CheckChunk(-1, b) || ref.CheckChunk(ref.Count(), nil) {
			t.Errorf("%d bytes: a chunk out of range is taken", size)
		}
	}
}

func TestGoldenChecks(t *testing.T) {
	c := spec().Contract
	good := wire.GoldenCase{Width: 2, Height: 1, Format: "bgr8", Pixels: make([]byte, 6), Output: make([]byte, 2)}
	for _, k := range []struct {
		name string
		edit func(g *wire.GoldenCase)
		want error
	}{
		{"good", func(*wire.GoldenCase) {}, nil},
		{"pixels missing", func(g *wire.GoldenCase) { g.Pixels = g.Pixels[1:] }, wire.ErrMalformed},
		{"another format", func(g *wire.GoldenCase) { g.Format = "yuyv" }, wire.ErrMalformed},
		{"no width", func(g *wire.GoldenCase) { g.Width, g.Pixels = 0, nil }, wire.ErrMalformed},
		{"sizes whose product overflows", func(g *wire.GoldenCase) { g.Width, g.Height = 1<<32, 1<<32 }, wire.ErrMalformed},
		{"output of another length", func(g *wire.GoldenCase) { g.Output = []byte{1} }, wire.ErrMalformed},
	} {
		g := good
		k.edit(&g)
		if _, err := wire.DecodeGolden(wire.Encode(wire.Golden{V: 1, Cases: []wire.GoldenCase{g}}), c); !errors.Is(err, k.want) {
			t.Errorf("%s: %v, want %v", k.name, err, k.want)
		}
	}
	for _, n := range []int{0, wire.MaxCases + 1} {
		cases := make([]wire.GoldenCase, n)
		for i := range cases {
			cases[i] = good
		}
		if _, err := wire.DecodeGolden(wire.Encode(wire.Golden{V: 1, Cases: cases}), c); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%d cases: %v", n, err)
		}
	}
}

func FuzzDecodeManifest(f *testing.F) {
	seed := wire.Encode(manifest())
	if len(seed) == 0 {
		f.Fatal("empty seed")
	}
	f.Add(seed)
	f.Add(seed[:len(seed)/2])
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := wire.DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := wire.DecodeManifest(wire.Encode(m))
		if err != nil {
			t.Fatalf("what was read is not written so that it can be read: %v", err)
		}
		if d := cmp.Diff(wire.Encode(m), wire.Encode(again)); d != "" {
			t.Error(d)
		}
		for i := range m.Variants {
			r := m.Variants[i].Model
			for _, k := range []int{0, r.Count() - 1} {
				r.CheckChunk(k, make([]byte, r.ChunkLen(k)))
			}
		}
	})
}

func FuzzDecodePlan(f *testing.F) {
	seed := wire.Encode(plan())
	if len(seed) == 0 {
		f.Fatal("empty seed")
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := wire.DecodePlan(b)
		if err != nil {
			return
		}
		p.Selector.Matches("cam-1", map[string]string{"site": "north"})
		if _, err := wire.DecodePlan(wire.Encode(p)); err != nil {
			t.Fatalf("what was read is not written so that it can be read: %v", err)
		}
	})
}

func FuzzDecodeGolden(f *testing.F) {
	seed := wire.Encode(wire.Golden{V: 1, Cases: []wire.GoldenCase{{Width: 2, Height: 1, Format: "gray8", Pixels: []byte{0, 1}, Output: []byte{1, 2}}}})
	if len(seed) == 0 {
		f.Fatal("empty seed")
	}
	f.Add(seed)
	f.Fuzz(func(t *testing.T, b []byte) {
		g, err := wire.DecodeGolden(b, spec().Contract)
		if err == nil && len(g.Cases) == 0 {
			t.Error("no cases and no error")
		}
	})
}
