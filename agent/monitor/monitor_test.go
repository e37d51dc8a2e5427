package monitor

import (
	"testing"
	"time"

	"github.com/droverhq/drover/infer"
)

func TestWindow(t *testing.T) {
	now := time.Unix(1000, 0)
	m := New(func() time.Time { return now })
	for i := range 100 {
		m.Add("door", "release/a/1", 3, time.Duration(i)*time.Millisecond, []infer.Score{{Class: i % 2, P: float32(i) / 99}})
	}
	now = now.Add(10 * time.Second)
	got := m.Flush(map[string]Totals{"door": {Dropped: 7, Stale: 2}})
	if len(got) != 1 {
		t.Fatalf("%d messages", len(got))
	}
	w := got[0]
	if w.Camera != "door" || w.Release != "release/a/1" || w.Seconds != 10 || w.Results != 100 || w.Dropped != 7 || w.Stale != 2 ||
		w.Classes[0] != 50 || w.Classes[1] != 50 || w.Classes[2] != 0 || w.AgeP50 != 50_000 || w.AgeP99 != 99_000 {
		t.Fatalf("%+v", w)
	}
	var sum uint64
	for _, n := range w.Confidence {
		sum += n
	}
	if sum != 100 || len(w.Confidence) != ConfidenceBins || w.Confidence[ConfidenceBins-1] == 0 {
		t.Fatalf("confidence %v", w.Confidence)
	}
	if again := m.Flush(nil); len(again) != 0 {
		t.Fatalf("an empty window was told: %+v", again)
	}
	m.Add("door", "release/a/1", 3, 0, []infer.Score{{Class: 2, P: 1}})
	if next := m.Flush(map[string]Totals{"door": {Dropped: 9, Stale: 2}}); next[0].Dropped != 2 || next[0].Stale != 0 || next[0].Classes[0] != 0 || next[0].Classes[2] != 1 {
		t.Fatalf("%+v", next)
	}
}

func TestAnotherReleaseIsAnotherWindow(t *testing.T) {
	m := New(time.Now)
	m.Add("door", "release/a/1", 2, 0, []infer.Score{{Class: 0, P: 1}})
	m.Add("door", "release/a/2", 4, 0, []infer.Score{{Class: 3, P: 1}})
	got := m.Flush(nil)
	if len(got) != 1 || got[0].Release != "release/a/2" || got[0].Results != 1 || len(got[0].Classes) != 4 {
		t.Fatalf("%+v", got)
	}
}

func TestAddDoesNotAllocate(t *testing.T) {
	m := New(time.Now)
	top := []infer.Score{{Class: 1, P: 0.5}}
	m.Add("door", "r", 10, 0, top)
	if n := testing.AllocsPerRun(100, func() { m.Add("door", "r", 10, time.Millisecond, top) }); n != 0 {
		t.Fatalf("%v allocations a result", n)
	}
}
