package health

import (
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

func TestJudge(t *testing.T) {
	spread := []uint64{60, 40}
	for _, tc := range []struct {
		name   string
		o      Observation
		p      Policy
		want   Verdict
		reason wire.Reason
	}{
		{"nothing seen", Observation{}, Policy{Frames: 10}, Wait, ""},
		{"nothing seen, nothing asked", Observation{}, Policy{}, Wait, ""},
		{"one short", Observation{Results: 9}, Policy{Frames: 10}, Wait, ""},
		{"enough", Observation{Results: 10, Classes: []uint64{10, 0}}, Policy{Frames: 10, Varied: true}, Commit, ""},
		{"crash beats everything", Observation{Results: 1000, Restarts: 1}, Policy{Frames: 10}, Return, wire.ReasonCrash},
		{"hang is named", Observation{Restarts: 1, Hangs: 1}, Policy{Frames: 10}, Return, wire.ReasonHang},
		{"few runtime errors", Observation{Results: 100, Errors: 5, Classes: spread}, Policy{Frames: 10}, Commit, ""},
		{"many runtime errors", Observation{Results: 100, Errors: 6}, Policy{Frames: 200}, Return, wire.ReasonCrash},
		{"only runtime errors", Observation{Errors: 1}, Policy{Frames: 10}, Return, wire.ReasonCrash},
		{"slow", Observation{Results: 50, P99: 2 * time.Millisecond}, Policy{Frames: 100, LatencyP99: time.Millisecond}, Return, wire.ReasonLatency},
		{"slow at first only", Observation{Results: 49, P99: 2 * time.Millisecond}, Policy{Frames: 100, LatencyP99: time.Millisecond}, Wait, ""},
		{"collapsed", Observation{Results: 100, Classes: []uint64{0, 100}}, Policy{Frames: 100, Varied: true}, Return, wire.ReasonCollapse},
		{"scene is uniform", Observation{Results: 100, Classes: []uint64{0, 100}}, Policy{Frames: 100}, Commit, ""},
		{"not collapsed", Observation{Results: 100, Classes: []uint64{2, 98}}, Policy{Frames: 100, Varied: true}, Commit, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, reason, msg := Judge(tc.o, tc.p)
			if got != tc.want || reason != tc.reason || (msg == "") != (got != Return) {
				t.Fatalf("%v %q %q, wanted %v %q", got, reason, msg, tc.want, tc.reason)
			}
		})
	}
}

func TestVaries(t *testing.T) {
	for _, tc := range []struct {
		classes []uint64
		want    bool
	}{{nil, false}, {[]uint64{10, 10}, false}, {[]uint64{30, 30}, true}, {[]uint64{0, 100}, false}} {
		if got := Varies(tc.classes); got != tc.want {
			t.Errorf("%v: %v", tc.classes, got)
		}
	}
}
