package statuspage

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/jpeg"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fake is a device that a test puts into any state.
type fake struct {
	mu       sync.Mutex
	snapshot Snapshot
	preview  func(ctx context.Context, camera string, width int) ([]byte, error)
}

func (f *fake) Snapshot() Snapshot {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.snapshot
}

func (f *fake) Preview(ctx context.Context, camera string, width int) ([]byte, error) {
	f.mu.Lock()
	p := f.preview
	f.mu.Unlock()
	if p == nil {
		return nil, errors.New("no camera")
	}
	return p(ctx, camera, width)
}

func (f *fake) change(edit func(*Snapshot)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	edit(&f.snapshot)
}

// start serves f on a free port of the loopback interface.
func start(t testing.TB, f *fake) *Server {
	t.Helper()
	s, err := Listen(Config{Addr: "127.0.0.1:0", Source: f, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

// get asks the handler without a network.
func get(t testing.TB, f *fake, target string, edit ...func(*http.Request)) *httptest.ResponseRecorder {
	t.Helper()
	s, err := Listen(Config{Addr: "127.0.0.1:0", Source: f, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer s.listener.Close()
	r := httptest.NewRequest(http.MethodGet, target, nil)
	r.Host = "127.0.0.1:8080"
	for _, e := range edit {
		e(r)
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, r)
	return w
}

var noon = time.Date(2026, 3, 14, 12, 0, 0, 0, time.UTC)

// healthy is a device in the middle of its work.
func healthy() Snapshot {
	digest := strings.Repeat("3fa91c07", 8)
	door := wire.CameraState{Name: "door", State: "running", FPS: 14.93, Width: 1280, Height: 720}
	return Snapshot{
		Now: noon, Started: noon.Add(-76 * time.Hour), Device: "gate-north-01", Fleet: "orchard", Broker: "mqtts://broker.orchard.example:8883", Connected: true,
		State: wire.State{
			Agent: "0.1.0", Arch: "arm64", Labels: map[string]string{"site": "north", "ring": "canary"},
			Active:   &wire.ReleaseRef{Path: "release/gate/7", Digest: digest, Variant: "cpu"},
			Previous: &wire.ReleaseRef{Path: "release/gate/6", Digest: strings.Repeat("b0", 32)},
			Update:   wire.UpdateStatus{State: wire.Idle, Release: "release/gate/7", Outcome: wire.Committed, Finished: noon.Add(-2 * time.Hour).UnixMilli()},
			Cameras:  []wire.CameraState{door}, Epoch: 3, Assurance: "software", Freshness: "current", Root: 2, Healthy: true,
		},
		Cameras: []Camera{{
			CameraState: door, Source: "v4l2:///dev/video0?width=1280&height=720&fps=15", Backend: "V4L2", Frames: 4104213, Results: 4090877, Stale: 3, Dropped: 13333,
			HasResult: true, Seq: 4104210, AgeMicros: 48200, SinceMicros: 61000,
			Top: []infer.Score{{Class: 3, Label: "Dress", P: .8731}, {Class: 0, Label: "T-shirt/top", P: .0902}, {Class: 4, Label: "Coat", P: .0211}, {Class: 6, Label: "Shirt", P: .0104}, {Class: 2, Label: "Pullover", P: .0033}},
		}},
		Model: Model{
			ModelState: wire.ModelState{State: "running", Delegate: "xnnpack", FPS: 14.9, InvokeP50: 6510, InvokeP99: 9840},
			Release:    "release/gate/7", Digest: strings.Repeat("9c41e7d2", 8), Size: 3664512, Variant: "cpu", Labels: make([]string, 10), Results: 4090877,
		},
		Outbox: Outbox{Waiting: 0}, Fetch: Fetch{Good: 56, Bytes: 3664512},
		History: story(),
	}
}

func story() []Entry {
	const release = "release/gate/7"
	var out []Entry
	add := func(ago time.Duration, ev wire.Event) {
		ev.Boot, ev.Seq = "B", uint64(len(out)+1)
		out = append(out, Entry{At: noon.Add(-ago), Event: ev})
	}
	add(40*time.Minute, wire.Event{Kind: wire.EventCamera, Message: `camera "door" is open: 1280×720 by V4L2`})
	add(41*time.Minute, wire.Event{Kind: wire.EventCamera, Message: `camera "door": no frame for 5s; next try in 1s`})
	add(2*time.Hour, wire.Event{Kind: wire.EventUpdate, Release: release, From: wire.Commit, To: wire.Idle, Outcome: wire.Committed})
	for _, p := range [][2]wire.UpdateState{{wire.Probation, wire.Commit}, {wire.Activate, wire.Probation}} {
		add(2*time.Hour+time.Minute, wire.Event{Kind: wire.EventUpdate, Release: release, From: p[0], To: p[1]})
	}
	add(2*time.Hour+2*time.Minute, wire.Event{Kind: wire.EventSwap, Release: release, Message: "answers the frames now; before: release/gate/6"})
	for _, p := range [][2]wire.UpdateState{{wire.Probe, wire.Activate}, {wire.Check, wire.Probe}, {wire.Assemble, wire.Check}, {wire.Fetch, wire.Assemble}, {wire.Verify, wire.Fetch}, {wire.Idle, wire.Verify}} {
		add(2*time.Hour+3*time.Minute, wire.Event{Kind: wire.EventUpdate, Release: release, From: p[0], To: p[1]})
	}
	add(26*time.Hour, wire.Event{Kind: wire.EventUpdate, Release: "release/gate/5", From: wire.Probe, To: wire.Idle, Outcome: wire.Refused, Reason: wire.ReasonGolden, Message: "golden input 2: class 4 with 0.91, signed is class 3 with 0.88"})
	add(50*time.Hour, wire.Event{Kind: wire.EventTrust, Reason: wire.ReasonSignature, Message: "targets version 12: 0 of 1 valid signatures"})
	add(76*time.Hour, wire.Event{Kind: wire.EventStart, Message: "droverd 0.1.0 on arm64"})
	return out
}

// picture is a JPEG in which something can be seen to move.
func picture(_ context.Context, _ string, width int) ([]byte, error) {
	h := width * 9 / 16
	img := image.NewRGBA(image.Rect(0, 0, width, h))
	for y := range h {
		for x := range width {
			img.SetRGBA(x, y, color.RGBA{uint8(60 + 90*x/width), uint8(90 + 70*y/h), uint8(120 - 60*y/h), 255})
		}
	}
	for y := h / 4; y < 3*h/4; y++ {
		for x := 2 * width / 5; x < 3*width/5; x++ {
			img.SetRGBA(x, y, color.RGBA{230, 225, 215, 255})
		}
	}
	var b bytes.Buffer
	err := jpeg.Encode(&b, img, nil)
	return b.Bytes(), err
}
