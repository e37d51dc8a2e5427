package story

import (
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
)

// device is one running daemon.
type device struct {
	t      *testing.T
	name   string
	dir    string
	status string // host:port of the status page
	cmd    *exec.Cmd
}

// makeDevice prepares a device that is in no fleet and has no camera.
func makeDevice(t *testing.T, name string) *device {
	t.Helper()
	d := &device{t: t, name: name, dir: openDir(t), status: freePort(t)}
	d.configure("")
	return d
}

// newDevice prepares a device with a token and one camera, and starts it.
func (w *world) newDevice(name string, pictures string) *device {
	w.t.Helper()
	d := makeDevice(w.t, name)
	d.write("enrolment-token", w.token(time.Hour).String())
	d.configure(cameras("door", folder(pictures)))
	d.start()
	return d
}

// folder is the source that replays pictures.
func folder(dir string) string { return "folder://" + dir + "?rate=20&loop=true" }

// cameras is the configuration of cameras: name, source, name, source …
func cameras(pairs ...string) string {
	s := "cameras:\n"
	for i := 0; i < len(pairs); i += 2 {
		s += fmt.Sprintf("  - {name: %s, source: '%s'}\n", pairs[i], pairs[i+1])
	}
	return s
}

// write puts a file into the state folder.
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

// configure writes the configuration; rest is all but name, folder and page.
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
	d.cmd = exec.Command(filepath.Join(built, "droverd"), "--config", filepath.Join(d.dir, "drover.yaml"))
	d.cmd.Stderr = logFile(d.t, "droverd-"+d.name)
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.cmd
	d.t.Cleanup(func() {
		if cmd.ProcessState == nil {
			d.end(cmd)
		}
	})
}

// stop ends the daemon in order.
func (d *device) stop() { d.t.Helper(); d.end(d.cmd) }

func (d *device) end(cmd *exec.Cmd) {
	d.t.Helper()
	_ = cmd.Process.Signal(syscall.SIGTERM)
	if err := cmd.Wait(); err != nil {
		d.t.Errorf("droverd %s: %v", d.name, err)
	}
}

// kill ends the daemon as a power cut would.
func (d *device) kill() {
	d.t.Helper()
	if err := d.cmd.Process.Kill(); err != nil {
		d.t.Errorf("droverd %s ended by itself: %v", d.name, err)
	}
	_ = d.cmd.Wait() // killed: that is no news
}

// alive fails the test when the daemon has ended.
func (d *device) alive() {
	d.t.Helper()
	if err := d.cmd.Process.Signal(syscall.Signal(0)); err != nil {
		d.t.Fatalf("droverd %s is gone: %v", d.name, err)
	}
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

// shows waits until the status page shows something.
func (d *device) shows(what string, is func(statuspage.Snapshot) bool) statuspage.Snapshot {
	d.t.Helper()
	var s statuspage.Snapshot
	defer func() {
		if d.t.Failed() {
			s.History = nil
			b, _ := json.MarshalIndent(s, "", " ") // plain values
			d.t.Logf("%s: last seen: %s", d.name, b)
		}
	}()
	eventually(d.t, d.name+" shows "+what, func() bool {
		var ok bool
		s, ok = d.snapshot()
		return ok && is(s)
	})
	return s
}

// answers waits until a release answers frames, and returns how many so far.
func (d *device) answers(release string) uint64 {
	d.t.Helper()
	s := d.shows("answers by "+release, func(s statuspage.Snapshot) bool {
		return s.Model.Release == release && s.Model.Results >= 5 && len(s.Cameras) > 0 && s.Cameras[0].HasResult
	})
	return s.Model.Results
}

// goesOn waits until a release has answered ten frames more.
func (d *device) goesOn(release string) {
	d.t.Helper()
	n := d.answers(release)
	d.shows("more answers by "+release, func(s statuspage.Snapshot) bool { return s.Model.Release == release && s.Model.Results > n+10 })
}

// said waits for an event in the device's own history.
func (d *device) said(what string, is func(wire.Event) bool) wire.Event {
	d.t.Helper()
	var found wire.Event
	d.shows("an event: "+what, func(s statuspage.Snapshot) bool {
		for _, e := range s.History {
			if is(e.Event) {
				found = e.Event
				return true
			}
		}
		return false
	})
	return found
}

// camera finds a camera in a snapshot.
func cameraOf(s statuspage.Snapshot, name string) statuspage.Camera {
	for _, c := range s.Cameras {
		if c.Name == name {
			return c
		}
	}
	return statuspage.Camera{}
}

// pictures makes a folder of dark and bright pictures.
func pictures(t *testing.T) string {
	t.Helper()
	dir := openDir(t)
	fill(t, dir)
	return dir
}

func fill(t *testing.T, dir string) {
	t.Helper()
	for i, b := range []byte{0, 255, 10, 245} {
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%d.png", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := png.Encode(f, picture(b)); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

func picture(brightness byte) image.Image {
	img := image.NewGray(image.Rect(0, 0, 64, 48))
	for p := range img.Pix {
		img.Pix[p] = color.Gray{Y: brightness}.Y
	}
	return img
}

// contains is a predicate on texts.
func contains(s string, parts ...string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}
