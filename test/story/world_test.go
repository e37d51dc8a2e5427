package story

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/test/brokertest"
	"github.com/droverhq/drover/test/tinymodel"
)

// world is a fleet with its hub.
type world struct {
	t       *testing.T
	fleet   *cloud.Fleet
	broker  brokertest.Server // nil: the hub's own
	stopHub func()
}

type brokerKind func(testing.TB, *brokertest.Fleet, string) brokertest.Server

// newWorld makes a fleet. Without a broker of its own it uses the hub's.
func newWorld(t *testing.T, external brokerKind) *world {
	t.Helper()
	s := cloud.Settings{Fleet: brokertest.FleetName}
	for _, e := range []*cloud.Endpoint{&s.Broker, &s.Enroll} {
		e.Listen = freePort(t)
		e.Public = e.Listen
	}
	if external != nil {
		s.External = s.Broker.Public
	}
	f, err := cloud.Init(t.Context(), filepath.Join(t.TempDir(), "fleet"), cloud.InitOptions{Settings: s, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	w := &world{t: t, fleet: f}
	if external != nil {
		w.broker = external(t, &brokertest.Fleet{Authority: f.Authority}, s.External)
		w.broker.Start(t)
	}
	return w
}

// startHub runs the hub until the test ends or w.stopHub is called.
func (w *world) startHub() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub, err := cloud.NewHub(ctx, w.fleet, cloud.HubOptions{Logger: slog.New(slog.NewTextHandler(logFile(w.t, "hub"), nil))})
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	var once sync.Once
	w.stopHub = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(w.stopHub)
}

// startHubProcess runs the hub apart; kill ends it as a power cut would.
func (w *world) startHubProcess() (kill func()) {
	w.t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), hubEnv+"="+w.fleet.Dir)
	cmd.Stderr = logFile(w.t, "hub")
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	var once sync.Once
	kill = func() {
		once.Do(func() {
			_ = cmd.Process.Kill() // it runs until then
			_ = cmd.Wait()
		})
	}
	w.t.Cleanup(kill)
	return kill
}

// events are what the hub has of a device, oldest first.
func (w *world) events(device string) []wire.Event {
	w.t.Helper()
	stored, err := w.fleet.Registry.Events(w.t.Context(), registry.EventFilter{Device: device, Limit: 5000})
	if err != nil {
		w.t.Fatal(err)
	}
	var out []wire.Event
	for i := len(stored) - 1; i >= 0; i-- {
		var e wire.Event
		if err := json.Unmarshal(stored[i].Body, &e); err != nil {
			w.t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// event waits for one event of a device and returns the first such.
func (w *world) event(device, what string, is func(wire.Event) bool) wire.Event {
	w.t.Helper()
	var found wire.Event
	eventually(w.t, device+": "+what, func() bool {
		for _, e := range w.events(device) {
			if is(e) {
				found = e
				return true
			}
		}
		return false
	})
	return found
}

// count says how many events of a device are such.
func (w *world) count(device string, is func(wire.Event) bool) int {
	n := 0
	for _, e := range w.events(device) {
		if is(e) {
			n++
		}
	}
	return n
}

func ended(release string, o wire.Outcome) func(wire.Event) bool {
	return func(e wire.Event) bool { return e.Release == release && e.Outcome == o }
}

func (w *world) hostOptions() host.Options {
	return host.Options{Program: filepath.Join(built, "drover-infer"), Profile: cage.Infer, Logger: slog.New(slog.DiscardHandler)}
}

// release pushes and signs a tiny model.
func (w *world) release(o tinymodel.Options) registry.Release {
	w.t.Helper()
	model, spec := tinymodel.Build(o)
	m, err := w.fleet.Push(w.t.Context(), cloud.PushOptions{Name: "tiny", Model: model, Spec: spec, Host: w.hostOptions()})
	if err != nil {
		w.t.Fatal(err)
	}
	rel, err := w.fleet.Release(w.t.Context(), cloud.ReleaseOptions{Model: m.Ref(), Host: w.hostOptions()})
	if err != nil {
		w.t.Fatal(err)
	}
	return rel
}

// model is a release's file in the registry.
func (w *world) model(rel registry.Release) (ref wire.BlobRef, path string) {
	w.t.Helper()
	m, err := w.fleet.Manifest(w.t.Context(), rel.Path)
	if err != nil {
		w.t.Fatal(err)
	}
	ref = m.Variants[0].Model
	err = filepath.WalkDir(filepath.Join(w.fleet.Dir, "registry"), func(p string, d os.DirEntry, err error) error {
		if err == nil && d.Name() == ref.Digest {
			path = p
		}
		return err
	})
	if err != nil || path == "" {
		w.t.Fatalf("blob %s in the registry: %q %v", ref.Digest, path, err)
	}
	return ref, path
}

// rollOut gives a release to everybody.
func (w *world) rollOut(release string) registry.Rollout {
	w.t.Helper()
	var ro registry.Rollout
	// The one before may just be ending.
	eventually(w.t, "no other rollout runs", func() bool {
		var err error
		ro, err = w.fleet.StartRollout(w.t.Context(), cloud.RolloutOptions{Release: release, Frames: 10, Seconds: 60})
		return err == nil
	})
	return ro
}

// rolloutIs waits for a rollout's state.
func (w *world) rolloutIs(id string, want rollout.State) {
	w.t.Helper()
	eventually(w.t, "rollout "+id+" is "+string(want), func() bool {
		ro, err := w.fleet.Registry.Rollout(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		return ro.State == string(want)
	})
}

// token makes an enrolment token.
func (w *world) token(valid time.Duration) wire.Token {
	w.t.Helper()
	token, err := w.fleet.Token(w.t.Context(), valid, false)
	if err != nil {
		w.t.Fatal(err)
	}
	return token
}

// deviceWith starts a device that runs a release already.
func (w *world) deviceWith(name string, rel registry.Release) *device {
	w.t.Helper()
	d := w.newDevice(name, pictures(w.t))
	w.rolloutIs(w.rollOut(rel.Path).ID, rollout.Done)
	d.answers(rel.Path)
	return d
}
