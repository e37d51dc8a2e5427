package monitor

import (
	"context"
	"encoding/json"
	"log/slog"
	"strings"
	"testing"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/registry"
)

func setup(t *testing.T) (*registry.Registry, *Monitor, *[]wire.Event) {
	t.Helper()
	r, err := registry.Open(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if err := r.UpsertDevice(t.Context(), registry.Device{ID: "gate-1", Shard: wire.Shard("gate-1"), Cert: registry.Cert{Serial: "1", Fingerprint: "f"}}); err != nil {
		t.Fatal(err)
	}
	var seen []wire.Event
	return r, New(r, slog.New(slog.DiscardHandler), func(_ string, e wire.Event) { seen = append(seen, e) }), &seen
}

func header(seq uint64) wire.Header { return wire.Header{V: wire.Version, Boot: "b1", Seq: seq} }

func receive(t *testing.T, m *Monitor, device string, leaf wire.Leaf, payload []byte) {
	t.Helper()
	if err := m.Receive(context.Background(), wire.Topic{Device: device, Leaf: leaf}, payload); err != nil {
		t.Fatal(err)
	}
}

func TestReports(t *testing.T) {
	r, m, seen := setup(t)
	receive(t, m, "gate-1", wire.LeafOnline, wire.Encode(wire.Online{V: wire.Version, Online: true, Session: "b1"}))
	for range 2 { // everything twice: it counts once
		receive(t, m, "gate-1", wire.LeafState, wire.Encode(wire.State{Header: header(1), Agent: "x", Assurance: "software"}))
		receive(t, m, "gate-1", wire.LeafEvent, wire.Encode(wire.Event{Header: header(2), Kind: wire.EventUpdate, Outcome: wire.Committed, Release: "release/a/1"}))
		receive(t, m, "gate-1", wire.LeafTelemetry, wire.Encode(wire.Telemetry{Header: header(3), Camera: "c", Results: 7}))
	}
	if s := m.Stats(); s != (Stats{States: 1, Events: 1, Telemetry: 1, Duplicates: 3}) {
		t.Fatalf("%+v", s)
	}
	if len(*seen) != 1 || (*seen)[0].Outcome != wire.Committed {
		t.Fatalf("%+v", *seen)
	}
	d, err := r.Device(t.Context(), "gate-1")
	if err != nil || !d.Online {
		t.Fatalf("%+v %v", d, err)
	}
	var s wire.State
	if err := json.Unmarshal(d.State, &s); err != nil || s.Agent != "x" {
		t.Fatalf("%+v %v", s, err)
	}
}

func TestBadReports(t *testing.T) {
	for _, tc := range []struct {
		name    string
		device  string
		leaf    wire.Leaf
		payload string
	}{
		{"no json", "gate-1", wire.LeafState, `\x00\xff`},
		{"other version", "gate-1", wire.LeafState, `{"v":2,"boot":"b","seq":1}`},
		{"no version", "gate-1", wire.LeafEvent, `{"boot":"b","seq":1,"kind":"update"}`},
		{"no boot id", "gate-1", wire.LeafEvent, `{"v":1,"seq":1,"kind":"update"}`},
		{"no sequence", "gate-1", wire.LeafState, `{"v":1,"boot":"b"}`},
		{"huge sequence", "gate-1", wire.LeafState, `{"v":1,"boot":"b","seq":18446744073709551615}`},
		{"no kind", "gate-1", wire.LeafEvent, `{"v":1,"boot":"b","seq":1}`},
		{"too large", "gate-1", wire.LeafEvent, `{"v":1,"boot":"b","seq":1,"kind":"update","message":"` + strings.Repeat("x", wire.MaxMessage) + `"}`},
		{"long message", "gate-1", wire.LeafEvent, `{"v":1,"boot":"b","seq":1,"kind":"update","message":"` + strings.Repeat("x", 5000) + `"}`},
		{"unknown device", "gate-2", wire.LeafState, `{"v":1,"boot":"b","seq":1}`},
		{"wrong type", "gate-1", wire.LeafState, `{"v":1,"boot":"b","seq":1,"healthy":"yes"}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r, m, seen := setup(t)
			receive(t, m, tc.device, tc.leaf, []byte(tc.payload))
			if s := m.Stats(); s != (Stats{Refused: 1}) {
				t.Fatalf("%+v", s)
			}
			ev, err := r.Events(t.Context(), registry.EventFilter{})
			if err != nil || len(ev) != 0 || len(*seen) != 0 {
				t.Fatalf("%v %v", ev, err)
			}
		})
	}
}

// What an operator sees later must be text, whatever a device put there.
func TestInjection(t *testing.T) {
	r, m, _ := setup(t)
	const evil = `'); DROP TABLE devices; -- <script>alert(1)</script>`
	receive(t, m, "gate-1", wire.LeafEvent, wire.Encode(wire.Event{Header: header(1), Kind: wire.EventChild, Message: evil, Release: evil}))
	ev, err := r.Events(t.Context(), registry.EventFilter{})
	if err != nil || len(ev) != 1 || ev[0].Release != evil {
		t.Fatalf("%+v %v", ev, err)
	}
}

func FuzzReceive(f *testing.F) {
	f.Add("state", wire.Encode(wire.State{Header: header(1)}))
	f.Add("event", wire.Encode(wire.Event{Header: header(1), Kind: wire.EventUpdate}))
	f.Add("online", wire.Encode(wire.Online{V: 1}))
	f.Add("telemetry", wire.Encode(wire.Telemetry{Header: header(1)}))
	f.Fuzz(func(t *testing.T, leaf string, payload []byte) {
		m := New(nothing{}, slog.New(slog.DiscardHandler), nil)
		if err := m.Receive(context.Background(), wire.Topic{Device: "gate-1", Leaf: wire.Leaf(leaf)}, payload); err != nil {
			t.Fatal(err)
		}
	})
}

type nothing struct{}

func (nothing) SetOnline(context.Context, string, bool) error { return nil }
func (nothing) RecordState(context.Context, string, string, int64, json.RawMessage) (bool, error) {
	return true, nil
}
func (nothing) AddEvent(context.Context, registry.Event) (bool, error) { return true, nil }
