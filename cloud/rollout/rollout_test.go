package rollout

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/droverhq/drover/agent/wire"
)

var start = time.Unix(1_700_000_000, 0)

func plan(waves int) *Plan {
	p := &Plan{ID: "r1", Serial: 1, Release: "release/gate/1", Frames: 10, Seconds: 60, MaxFailed: 0.1, Deadline: start.Add(time.Hour)}
	for i := range waves {
		p.Waves = append(p.Waves, Wave{Selector: wire.Selector{Threshold: wire.Whole / uint64(waves) * uint64(i+1)}, Soak: time.Minute})
	}
	return p
}

func TestDecide(t *testing.T) {
	running := Progress{State: Running}
	for _, tc := range []struct {
		name  string
		waves int
		at    Progress
		seen  Observed
		now   time.Time
		want  Progress
	}{
		{"nobody yet", 1, running, Observed{}, start, Progress{State: Running}},
		{"under way", 1, running, Observed{Selected: 3, Committed: 1}, start, Progress{State: Running}},
		{"soaking", 1, running, Observed{Selected: 3, Committed: 3}, start, Progress{State: Running, DoneAt: start}},
		{"soaked", 1, Progress{State: Running, DoneAt: start}, Observed{Selected: 3, Committed: 3}, start.Add(time.Minute), Progress{State: Done, DoneAt: start}},
		{"unreachable devices do not hold it up", 1, Progress{State: Running, DoneAt: start}, Observed{Selected: 3, Committed: 2, Unreachable: 1}, start.Add(time.Minute), Progress{State: Done, DoneAt: start}},
		{"only unreachable ones prove nothing", 1, running, Observed{Selected: 3, Unreachable: 3}, start, Progress{State: Running}},
		{"next wave", 2, Progress{State: Running, DoneAt: start}, Observed{Selected: 3, Committed: 3}, start.Add(time.Minute), Progress{State: Running, Wave: 1}},
		{"soak begins anew when a device falls back", 1, Progress{State: Running, DoneAt: start}, Observed{Selected: 3, Committed: 2}, start.Add(time.Minute), Progress{State: Running}},
		{"one of two failed says little", 1, running, Observed{Selected: 20, Committed: 1, Failed: 1}, start, Progress{State: Running}},
		{"all failed", 1, running, Observed{Selected: 20, Failed: 3}, start, Progress{State: Halted}},
		{"deadline", 1, running, Observed{Selected: 3, Committed: 1}, start.Add(2 * time.Hour), Progress{State: Halted}},
		{"halted stays halted", 1, Progress{State: Halted}, Observed{Selected: 3, Committed: 3}, start, Progress{State: Halted}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Decide(plan(tc.waves), tc.at, tc.seen, tc.now)
			if got.State != tc.want.State || got.Wave != tc.want.Wave || !got.DoneAt.Equal(tc.want.DoneAt) || (got.Reason != "") != (tc.want.State == Halted && tc.at.State != Halted) {
				t.Fatalf("%+v, wanted %+v", got, tc.want)
			}
		})
	}
}

// Whatever is seen: a halt is final, a wave is never skipped, and at the latest
// after the deadline nothing is running any more unless it goes well.
func TestDecideNeverWidensAfterAHalt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := plan(rapid.IntRange(1, 5).Draw(t, "waves"))
		at := Progress{State: Running}
		now := start
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			n := rapid.IntRange(0, 50).Draw(t, "selected")
			c := rapid.IntRange(0, n).Draw(t, "committed")
			f := rapid.IntRange(0, n-c).Draw(t, "failed")
			u := rapid.IntRange(0, n-c-f).Draw(t, "unreachable")
			now = now.Add(time.Duration(rapid.IntRange(0, 600).Draw(t, "seconds")) * time.Second)
			next := Decide(p, at, Observed{Selected: n, Committed: c, Failed: f, Unreachable: u}, now)
			if next.Wave > at.Wave+1 || next.Wave < at.Wave || next.Wave >= len(p.Waves) {
				t.Fatalf("wave %d after %d", next.Wave, at.Wave)
			}
			if at.State != Running && (next.State != at.State || next.Wave != at.Wave) {
				t.Fatalf("%s went on to %s, wave %d to %d", at.State, next.State, at.Wave, next.Wave)
			}
			if next.State == Halted && next.Wave != at.Wave {
				t.Fatal("widened while halting")
			}
			at = next
		}
		if end := Decide(p, at, Observed{Selected: 5, Committed: 1}, p.Deadline.Add(time.Second)); end.State == Running {
			t.Fatal("still running after the deadline")
		}
	})
}

func TestWilsonLow(t *testing.T) {
	// Worked example: 10 of 100 gives the interval (0.0552, 0.1744).
	if got := WilsonLow(10, 100); math.Abs(got-0.0552) > 0.0001 {
		t.Errorf("10 of 100: %v", got)
	}
	if got := WilsonLow(0, 0); got != 0 {
		t.Errorf("0 of 0: %v", got)
	}
	if got := WilsonLow(3, 3); math.Abs(got-0.4385) > 0.0001 {
		t.Errorf("3 of 3: %v", got)
	}
}

func TestCheck(t *testing.T) {
	for name, spoil := range map[string]func(*Plan){
		"no wave":     func(p *Plan) { p.Waves = nil },
		"no deadline": func(p *Plan) { p.Deadline = time.Time{} },
		"no failures": func(p *Plan) { p.MaxFailed = 0 },
		"release":     func(p *Plan) { p.Release = "gate/1" },
		"probation":   func(p *Plan) { p.Frames = 0 },
	} {
		p := plan(2)
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		spoil(p)
		if p.Check() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
