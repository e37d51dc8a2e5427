package evaluate

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func near(a, b float64) bool { return math.Abs(a-b) < 5e-5 }

func TestWilson(t *testing.T) {
	for _, c := range []struct {
		k, n      int
		low, high float64
	}{
		{0, 0, 0, 1},
		{0, 10, 0, 0.27753},
		{10, 10, 0.72247, 1},
		{81, 263, 0.25527, 0.36624}, // Newcombe 1998, table I, method 3: 0.2553 to 0.3662
		{15, 148, 0.06243, 0.16062}, // 0.0624 to 0.1605
		{1, 29, 0.00612, 0.17176},   // 0.0061 to 0.1718
	} {
		low, high := Wilson(c.k, c.n)
		if math.Abs(low-c.low) > 2e-4 || math.Abs(high-c.high) > 2e-4 {
			t.Errorf("%d of %d: %.5f to %.5f, wanted %.5f to %.5f", c.k, c.n, low, high, c.low, c.high)
		}
	}
}

func TestMcNemar(t *testing.T) {
	for _, c := range []struct {
		a, b  int
		p     float64
		exact bool
	}{
		{0, 0, 1, true},
		{3, 3, 1, true},
		{1, 9, 22.0 / 1024, true},         // 2·(1+10)/2¹⁰
		{0, 5, 2.0 / 32, true},            // 2·1/2⁵
		{10, 15, 0.42371, false},          // χ² = 16/25 = 0.64
		{121, 59, 0.0000054517857, false}, // χ² = 61²/180 = 20.672
		{50, 50, 1, false},
	} {
		got := McNemar(c.a, c.b)
		if !near(got.P, c.p) || got.Exact != c.exact || got != func() Comparison { m := McNemar(c.b, c.a); m.OnlyFirst, m.OnlySecond = c.a, c.b; return m }() {
			t.Errorf("%d and %d: %+v, wanted p %v", c.a, c.b, got, c.p)
		}
	}
}

func TestCompare(t *testing.T) {
	a := &Report{Dataset: "d", Outcomes: []Outcome{{0, 0, 1, false}, {0, 0, 1, false}, {0, 1, 1, false}, {Skipped: true}}}
	b := &Report{Dataset: "d", Outcomes: []Outcome{{0, 1, 1, false}, {0, 0, 1, false}, {0, 1, 1, false}, {0, 0, 1, false}}}
	got, err := Compare(a, b)
	if err != nil || got.N != 3 || got.OnlyFirst != 1 || got.OnlySecond != 0 || got.P != 1 {
		t.Errorf("%+v, %v", got, err)
	}
	for name, other := range map[string]*Report{
		"other set":    {Dataset: "e", Outcomes: b.Outcomes},
		"other digest": {Dataset: "d", DatasetDigest: "x", Outcomes: b.Outcomes},
		"fewer":        {Dataset: "d", Outcomes: b.Outcomes[:2]},
		"from JSON":    {Dataset: "d"},
	} {
		if _, err := Compare(a, other); !errors.Is(err, ErrOtherSet) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLatency(t *testing.T) {
	ds := make([]time.Duration, 200)
	for i := range ds {
		ds[len(ds)-1-i] = time.Duration(i+1) * time.Millisecond
	}
	want := Latency{Mean: 100.5, P50: 100, P99: 198, Max: 200}
	if got := latencyOf(ds); got != want {
		t.Errorf("%+v, wanted %+v", got, want)
	}
	if got := latencyOf(nil); got != (Latency{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

// exactArea is the definition, in n².
func exactArea(own, rest []float32) float64 {
	var pairs float64
	for _, o := range own {
		for _, r := range rest {
			switch {
			case o > r:
				pairs++
			case o == r:
				pairs += .5
			}
		}
	}
	return pairs / float64(len(own)*len(rest))
}

func TestAreaAgreesWithItsDefinition(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for name, c := range map[string]struct {
		score   func() float32
		classes int
		within  float64
	}{
		"8 bit, 1/256":     {func() float32 { return float32(rng.IntN(256)) / 256 }, 3, 0},
		"8 bit, any scale": {func() float32 { return float32(rng.IntN(256)) * 0.0037 }, 3, 0},
		"8 bit, skewed":    {func() float32 { return float32(rng.IntN(1+rng.IntN(256))) * 0.00390625 }, 1001, 0},
		"float":            {rng.Float32, 3, 2e-3},
		"float, tiny":      {func() float32 { return rng.Float32() * rng.Float32() * 1e-4 }, 3, 2e-3},
	} {
		t.Run(name, func(t *testing.T) {
			support := make([]int, c.classes)
			for i := range support {
				support[i] = 1
			}
			a := newAUC(support)
			if 2*c.classes*a.bins > maxAUCBins {
				t.Fatalf("%d counters", 2*c.classes*a.bins)
			}
			var own, rest []float32
			row := make([]float32, c.classes)
			for range 300 {
				actual := rng.IntN(2)
				row[0] = c.score()
				if actual == 0 {
					own = append(own, row[0])
				} else {
					rest = append(rest, row[0])
				}
				a.add(actual, row)
			}
			got, ok := a.area(0)
			if want := exactArea(own, rest); !ok || math.Abs(got-want) > c.within+1e-12 {
				t.Errorf("area %v, wanted %v", got, want)
			}
		})
	}
	a := newAUC([]int{1, 0})
	a.add(0, []float32{1, 0})
	if _, ok := a.area(0); ok {
		t.Error("an area without other pictures")
	}
	if _, ok := a.area(1); ok {
		t.Error("an area of a class without pictures")
	}
}
