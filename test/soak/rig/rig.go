// Package rig runs a fleet of built programs for tests that do them harm: a
// hub, real device daemons with real children, and between them a wire that
// can be cut.
package rig

import (
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/test/tinymodel"
)

// Patience bounds every wait; it is far above what a busy machine needs.
const Patience = 2 * time.Minute

// Eventually waits for something.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

// Fleet is a hub and what belongs to it. It is not safe for concurrent use.
type Fleet struct {
	t     testing.TB
	built string // folder of the programs
	fleet *cloud.Fleet
	Wire  *Wire // between devices and broker

	stop func()
}

// New makes a fleet and starts its hub.
func New(t testing.TB, programs string) *Fleet {
	t.Helper()
	f := &Fleet{t: t, built: programs}
	broker := freeAddr(t)
	f.Wire = newWire(t, broker)
	enroll := freeAddr(t)
	s := cloud.Settings{
		Fleet: "rig", Broker: cloud.Endpoint{Listen: broker, Public: f.Wire.Addr()}, Enroll: cloud.Endpoint{Listen: enroll, Public: enroll},
	}
	var err error
	if f.fleet, err = cloud.Init(t.Context(), filepath.Join(t.TempDir(), "fleet"), cloud.InitOptions{Settings: s, Insecure: true}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.fleet.Close() })
	f.StartHub()
	t.Cleanup(func() { f.StopHub() })
	return f
}

// StartHub runs hub and broker in this process.
func (f *Fleet) StartHub() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	hub, err := cloud.NewHub(ctx, f.fleet, cloud.HubOptions{Logger: slog.New(slog.NewTextHandler(logFile(f.t, "hub"), nil))})
	if err != nil {
		cancel()
		f.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- hub.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Error(err)
		}
	})
}

// StopHub ends hub and broker.
func (f *Fleet) StopHub() { f.stop() }

// Release pushes and signs a model of its own.
func (f *Fleet) Release(name string, padding int) string {
	f.t.Helper()
	o := host.Options{Program: filepath.Join(f.built, "drover-infer"), Profile: cage.Infer, Logger: slog.New(slog.DiscardHandler)}
	model, spec := tinymodel.Build(tinymodel.Options{Name: name, Padding: padding})
	m, err := f.fleet.Push(f.t.Context(), cloud.PushOptions{Name: "tiny", Model: model, Spec: spec, Host: o})
	if err != nil {
		f.t.Fatal(err)
	}
	rel, err := f.fleet.Release(f.t.Context(), cloud.ReleaseOptions{Model: m.Ref(), Host: o})
	if err != nil {
		f.t.Fatal(err)
	}
	return rel.Path
}

// RollOut gives a release to everybody, as soon as no other rollout runs.
func (f *Fleet) RollOut(release string) registry.Rollout {
	f.t.Helper()
	var ro registry.Rollout
	Eventually(f.t, "a rollout of "+release, func() (ok bool) { ro, ok = f.TryRollOut(release); return ok })
	return ro
}

// TryRollOut is RollOut that may find another rollout under way.
func (f *Fleet) TryRollOut(release string) (registry.Rollout, bool) {
	ro, err := f.fleet.StartRollout(f.t.Context(), cloud.RolloutOptions{Release: release, Frames: 10, Seconds: 60})
	return ro, err == nil
}

// State is a rollout's.
func (f *Fleet) State(id string) rollout.State {
	f.t.Helper()
	ro, err := f.fleet.Registry.Rollout(f.t.Context(), id)
	if err != nil {
		f.t.Fatal(err)
	}
	return rollout.State(ro.State)
}

// Device is one daemon.
type Device struct {
	t      testing.TB
	Name   string
	Dir    string // state lies in Dir/state
	status string
	built  string
	cmd    *exec.Cmd
	log    *os.File
}

// Device makes a daemon with one camera, not yet started. Its state folder is
// there.
func (f *Fleet) Device(name string) *Device {
	f.t.Helper()
	d := &Device{t: f.t, Name: name, Dir: openDir(f.t), status: freeAddr(f.t), built: f.built, log: logFile(f.t, "droverd-"+name)}
	if err := os.Mkdir(filepath.Join(d.Dir, "state"), 0o700); err != nil {
		f.t.Fatal(err)
	}
	pictures := filepath.Join(d.Dir, "pictures")
	if err := os.Mkdir(pictures, 0o755); err != nil {
		f.t.Fatal(err)
	}
	for i, b := range []byte{0, 255, 10, 245} {
		img := image.NewGray(image.Rect(0, 0, 64, 48))
		for p := range img.Pix {
			img.Pix[p] = b
		}
		out, err := os.Create(filepath.Join(pictures, strconv.Itoa(i)+".png"))
		if err != nil {
			f.t.Fatal(err)
		}
		if err := png.Encode(out, img); err != nil {
			f.t.Fatal(err)
		}
		out.Close()
	}
	d.write("drover.yaml", fmt.Sprintf("device: %s\nstate: state\nstatus: {listen: %s}\ntelemetry: {every: 2s}\ncameras:\n  - {name: door, source: 'folder://%s?rate=20&loop=true'}\n", name, d.status, pictures))
	return d
}

// Enroll gives the device its token.
func (f *Fleet) Enroll(d *Device) {
	f.t.Helper()
	token, err := f.fleet.Token(f.t.Context(), time.Hour, false)
	if err != nil {
		f.t.Fatal(err)
	}
	d.write("state/enrolment-token", token.String())
}

func (d *Device) write(name, content string) {
	d.t.Helper()
	if err := os.WriteFile(filepath.Join(d.Dir, name), []byte(content), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// Start runs the daemon; the test's end stops it.
func (d *Device) Start() {
	d.t.Helper()
	d.cmd = exec.Command(filepath.Join(d.built, "droverd"), "--config", filepath.Join(d.Dir, "drover.yaml"))
	d.cmd.Stderr = d.log
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.cmd
	d.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			if err := cmd.Wait(); err != nil {
				d.t.Errorf("droverd %s: %v", d.Name, err)
			}
		}
	})
}

// Kill ends the daemon as a power cut would, and waits for the end of its
// children.
func (d *Device) Kill() {
	d.t.Helper()
	left := Children(d.PID())
	_ = d.cmd.Process.Kill()
	d.Died(left)
}

// Died waits for the end of a daemon that somebody killed, and of its children.
func (d *Device) Died(children []int) {
	d.t.Helper()
	_ = d.cmd.Wait() // killed: that is no news
	for _, pid := range children {
		Eventually(d.t, fmt.Sprintf("child %d of %s ends with its parent", pid, d.Name), func() bool { return gone(pid) })
	}
}

// Alive says whether the daemon runs.
func (d *Device) Alive() bool { return !gone(d.PID()) }

// PID is the daemon's.
func (d *Device) PID() int { return d.cmd.Process.Pid }

func (d *Device) get(path string) (int, []byte) {
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

// Snapshot is the status page's view; ok is false while it does not answer.
func (d *Device) Snapshot() (s statuspage.Snapshot, ok bool) {
	code, b := d.get("/api/status")
	return s, code == http.StatusOK && json.Unmarshal(b, &s) == nil
}

// Answers says whether one of these releases answers frames now.
func (d *Device) Answers(releases ...string) bool {
	s, ok := d.Snapshot()
	if !ok || s.Model.Results < 5 {
		return false
	}
	for _, r := range releases {
		if s.Model.Release == r {
			return true
		}
	}
	return false
}

// Committed says whether a release answers and is committed.
func (d *Device) Committed(release string) bool {
	s, ok := d.Snapshot()
	a := s.State.Active
	return ok && s.Model.Release == release && s.Model.Results >= 5 && a != nil && a.Path == release && s.State.Update.State == "idle"
}

func freeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// openDir is a folder that children with another uid may read.
func openDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-rig")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// logFile is a file whose end is shown when the test fails.
func logFile(t testing.TB, part string) *os.File {
	t.Helper()
	f, err := os.CreateTemp("", part+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, err := os.ReadFile(f.Name()); t.Failed() && err == nil {
			lines := strings.Split(strings.TrimSpace(string(b)), "\n")
			t.Logf("log of %s:\n%s", part, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
		f.Close()
		os.Remove(f.Name())
	})
	return f
}
