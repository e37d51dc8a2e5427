// Package story runs the built programs as their users do: a fleet folder, a
// hub with its broker (embedded, or a real mosquitto), and real device daemons
// with real children. Each test reads like the sentence it proves.
package story

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/test/programs"
	"github.com/droverhq/drover/test/tinymodel"
)

var built string // folder of the programs

func TestMain(m *testing.M) {
	cage.Main()
	os.Exit(runAll(m))
}

func runAll(m *testing.M) int {
	dir, remove, err := programs.Folder("droverd", "drover-camera", "drover-infer")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	built = dir
	return m.Run()
}

// patience bounds every wait; it is far above what a busy machine needs.
const patience = 90 * time.Second

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// freePort finds a port nobody listens on just now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// openDir is a folder that children with another uid may read.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-story")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// world is a fleet with its hub.
type world struct {
	t      *testing.T
	fleet  *cloud.Fleet
	hub    *cloud.Hub
	stop   func()
	mu     sync.Mutex
	events []deviceEvent
}

type deviceEvent struct {
	device string
	wire.Event
}

// newWorld makes a fleet; edit may change its settings.
func newWorld(t *testing.T, edit func(*cloud.Settings)) *world {
	t.Helper()
	s := cloud.Settings{Fleet: "story"}
	for _, e := range []*cloud.Endpoint{&s.Broker, &s.Enroll} {
		e.Listen = freePort(t)
		e.Public = e.Listen
	}
	if edit != nil {
		edit(&s)
	}
	f, err := cloud.Init(t.Context(), filepath.Join(t.TempDir(), "fleet"), cloud.InitOptions{Settings: s, Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &world{t: t, fleet: f}
}

// startHub runs the hub until the test ends or w.stop is called.
func (w *world) startHub() {
	w.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub, err := cloud.NewHub(ctx, w.fleet, cloud.HubOptions{Logger: testLogger(w.t, "hub"), Observe: func(device string, e wire.Event) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.events = append(w.events, deviceEvent{device, e})
	}})
	if err != nil {
		cancel()
		w.t.Fatal(err)
	}
	w.hub = hub
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	var once sync.Once
	w.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				w.t.Error(err)
			}
		})
	}
	w.t.Cleanup(w.stop)
}

// event waits for one event of a device and returns it.
func (w *world) event(device, what string, is func(wire.Event) bool) wire.Event {
	w.t.Helper()
	var found wire.Event
	eventually(w.t, what, func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range w.events {
			if e.device == device && is(e.Event) {
				found = e.Event
				return true
			}
		}
		return false
	})
	return found
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
	var got string
	eventually(w.t, "rollout "+id+" is "+string(want), func() bool {
		ro, err := w.fleet.Registry.Rollout(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		got = ro.State
		return got == string(want)
	})
}

// device is one running daemon.
type device struct {
	t      *testing.T
	name   string
	dir    string
	status string // host:port of the status page
	cmd    *exec.Cmd
	log    *os.File
}

// newDevice prepares a device with a token and one camera, and starts it.
func (w *world) newDevice(name string, pictures string) *device {
	w.t.Helper()
	d := &device{t: w.t, name: name, dir: openDir(w.t), status: freePort(w.t)}
	token, err := w.fleet.Token(w.t.Context(), time.Hour, false)
	if err != nil {
		w.t.Fatal(err)
	}
	d.write("enrolment-token", token.String())
	d.configure("cameras:\n  - {name: door, source: 'folder://" + pictures + "?rate=20&loop=true'}\n")
	d.start()
	return d
}

func (d *device) write(name, content string) {
	d.t.Helper()
	path := filepath.Join(d.dir, "state", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) configure(rest string) {
	d.t.Helper()
	yaml := fmt.Sprintf("device: %s\nstate: state\nstatus: {listen: %s}\ntelemetry: {every: 2s}\n%s", d.name, d.status, rest)
	path := filepath.Join(d.dir, "drover.yaml")
	if err := os.WriteFile(path+".new", []byte(yaml), 0o600); err != nil {
		d.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) start() {
	d.t.Helper()
	var err error
	if d.log, err = os.CreateTemp("", "droverd-*.log"); err != nil {
		d.t.Fatal(err)
	}
	d.cmd = exec.Command(filepath.Join(built, "droverd"), "--config", filepath.Join(d.dir, "drover.yaml"))
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd, log := d.cmd, d.log
	d.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				d.t.Errorf("droverd %s: %v", d.name, err)
			}
		}
		if d.t.Failed() {
			if b, err := os.ReadFile(log.Name()); err == nil {
				d.t.Logf("log of %s:\n%s", d.name, lastLines(string(b), 80))
			}
		}
		log.Close()
		os.Remove(log.Name())
	})
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// kill ends the daemon as a power cut would.
func (d *device) kill() {
	d.t.Helper()
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
}

func (d *device) get(path string) (int, []byte) {
	client := http.Client{Timeout: 5 * time.Second}
	r, err := client.Get("http://" + d.status + path)
	if err != nil {
		return 0, nil
	}
	defer r.Body.Close()
	b, err := io.ReadAll(io.LimitReader(r.Body, 4<<20))
	if err != nil {
		return 0, nil
	}
	return r.StatusCode, b
}

// snapshot is the status page's view; ok is false while it does not answer.
func (d *device) snapshot() (s statuspage.Snapshot, ok bool) {
	code, b := d.get("/api/status")
	return s, code == http.StatusOK && json.Unmarshal(b, &s) == nil
}

// answers waits until a release answers frames, and returns how many so far.
func (d *device) answers(release string) uint64 {
	d.t.Helper()
	var n uint64
	eventually(d.t, d.name+" answers frames by "+release, func() bool {
		s, ok := d.snapshot()
		if !ok || s.Model.Release != release || s.Model.Results < 5 || len(s.Cameras) == 0 || !s.Cameras[0].HasResult {
			return false
		}
		n = s.Model.Results
		return true
	})
	return n
}

// pictures makes a folder of dark and bright pictures.
func pictures(t *testing.T) string {
	t.Helper()
	dir := openDir(t)
	for i, b := range []byte{0, 255, 10, 245} {
		img := image.NewGray(image.Rect(0, 0, 64, 48))
		for p := range img.Pix {
			img.Pix[p] = color.Gray{Y: b}.Y
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.png", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, img); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	return dir
}

// testLogger shows what a part logged if the test fails.
func testLogger(t *testing.T, part string) *slog.Logger {
	t.Helper()
	f, err := os.CreateTemp("", part+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			if b, err := os.ReadFile(f.Name()); err == nil {
				t.Logf("log of %s:\n%s", part, lastLines(string(b), 60))
			}
		}
		f.Close()
		os.Remove(f.Name())
	})
	return slog.New(slog.NewTextHandler(f, nil))
}
