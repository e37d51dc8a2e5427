package story

import (
	"bufio"
	"bytes"
	"fmt"
	"image/jpeg"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/statuspage"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/test/tinymodel"
)

// mute is a server that takes connections and says nothing, until it is told
// to serve motion JPEG.
type mute struct {
	addr  string
	serve atomic.Bool
}

func newMute(t *testing.T) *mute {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &mute{addr: l.Addr().String()}
	var wg sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer c.Close()
				if m.serve.Load() {
					m.stream(c)
				} else {
					_, _ = bufio.NewReader(c).ReadString(0) // until the other side leaves
				}
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return m
}

// stream sends pictures until nobody reads them.
func (m *mute) stream(c net.Conn) {
	var pic bytes.Buffer
	if err := jpeg.Encode(&pic, picture(250), nil); err != nil {
		return
	}
	_, err := fmt.Fprint(c, "HTTP/1.0 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
	for err == nil {
		_, err = fmt.Fprintf(c, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", pic.Len(), pic.Bytes())
		time.Sleep(50 * time.Millisecond)
	}
}

// Cameras that do not answer, vanish or never were there say so, disturb no
// other, and work as soon as they can.
func TestDeadCamerasAreToldAndRecover(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)

	web, stream, vanishing := newMute(t), newMute(t), pictures(t)
	d.configure(cameras("door", folder(pictures(t)), "web", "http://"+web.addr+"/video.mjpg", "stream", "rtsp://"+stream.addr+"/live",
		"usb", "/dev/video93", "shed", folder(vanishing)))
	d.shows("the missing device", func(s statuspage.Snapshot) bool {
		c := cameraOf(s, "usb")
		return c.State == "failed" && contains(c.Error, "video93")
	})
	d.shows("answers on the folder", func(s statuspage.Snapshot) bool { return cameraOf(s, "shed").Results > 5 })
	if err := os.RemoveAll(vanishing); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"web", "stream", "shed"} {
		s := d.shows(name+" is down, and why", func(s statuspage.Snapshot) bool {
			c := cameraOf(s, name)
			return (c.State == "failed" || c.State == "stalled") && c.Error != ""
		})
		t.Logf("%s: %s: %s", name, cameraOf(s, name).State, cameraOf(s, name).Error)
	}
	d.goesOn(v1.Path)
	if s, _ := d.snapshot(); s.State.Healthy || !contains(strings.Join(s.State.Problems, "; "), "web", "stream", "usb", "shed") {
		t.Errorf("healthy %v, problems %q", s.State.Healthy, s.State.Problems)
	}
	if code, _ := d.get("/healthz"); code == 0 {
		t.Error("no /healthz")
	}

	web.serve.Store(true)
	if err := os.Mkdir(vanishing, 0o755); err != nil {
		t.Fatal(err)
	}
	fill(t, vanishing)
	for _, name := range []string{"web", "shed"} {
		s := d.shows(name+" answers", func(s statuspage.Snapshot) bool {
			c := cameraOf(s, name)
			return c.State == "running" && c.HasResult && c.SinceMicros < 1_000_000
		})
		if c := cameraOf(s, name); c.Error != "" || c.Restarts == 0 {
			t.Errorf("%s: %+v", name, c)
		}
	}
	d.alive()
}

// The configuration is reloaded while the daemon runs, on a change and on
// SIGHUP: cameras come and go, labels follow, and a bad edit keeps the last
// good configuration and says so on the page and to the hub.
func TestTheConfigurationIsReloadedWhileRunning(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	one, two := pictures(t), pictures(t)

	d.configure(cameras("door", folder(one), "yard", folder(two)) + "labels: {site: north}\n")
	s := d.shows("two cameras", func(s statuspage.Snapshot) bool {
		return cameraOf(s, "door").Results > 5 && cameraOf(s, "yard").Results > 5 && s.State.Labels["site"] == "north"
	})
	restarts, frames := cameraOf(s, "door").Restarts, cameraOf(s, "door").Frames
	eventually(t, "the hub knows the label", func() bool {
		dev, err := w.fleet.Registry.Device(t.Context(), "gate-1")
		var st wire.State
		return err == nil && wire.Decode(dev.State, wire.MaxMessage, &st) == nil && st.Labels["site"] == "north" && len(st.Cameras) == 2
	})

	d.configure(cameras("door", folder(one)) + "camras: []\n")
	d.shows("what is wrong with the edit", func(s statuspage.Snapshot) bool { return contains(s.State.Config, "camras") })
	w.event("gate-1", "the edit is reported", func(e wire.Event) bool {
		return e.Kind == wire.EventConfig && contains(e.Message, "not taken", "camras")
	})
	if _, page := d.get("/"); !contains(string(page), "camras") {
		t.Error("the page does not say what is wrong")
	}
	d.shows("both cameras go on", func(s statuspage.Snapshot) bool {
		return cameraOf(s, "door").Frames > frames+20 && cameraOf(s, "yard").SinceMicros < 1_000_000
	})

	d.configure(cameras("door", folder(one)) + "labels: {site: south}\n")
	s = d.shows("one camera", func(s statuspage.Snapshot) bool {
		return len(s.Cameras) == 1 && s.State.Config == "" && s.State.Labels["site"] == "south"
	})
	if c := cameraOf(s, "door"); c.Restarts != restarts || c.Frames <= frames {
		t.Errorf("the camera that stayed was disturbed: %+v", c)
	}

	// SIGHUP reads the file again although nothing has changed.
	taken := func() int {
		return w.count("gate-1", func(e wire.Event) bool { return e.Kind == wire.EventConfig && contains(e.Message, "taken") })
	}
	n := taken()
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "SIGHUP reloads", func() bool { return taken() > n })
	d.goesOn(v1.Path)
}

// The page, its health, its metrics and its pictures are what they claim.
func TestTheStatusPageServesHealthMetricsAndPictures(t *testing.T) {
	t.Parallel()
	w := newWorld(t, nil)
	w.startHub()
	v1 := w.release(tinymodel.Options{Name: "one"})
	d := w.deviceWith("gate-1", v1)
	eventually(t, "healthy", func() bool { code, _ := d.get("/healthz"); return code == 200 })
	code, page := d.get("/")
	if code != 200 || !contains(string(page), "gate-1", v1.Path) {
		t.Errorf("page: %d, %d bytes", code, len(page))
	}
	code, metrics := d.get("/metrics")
	if code != 200 || !contains(string(metrics), "drover_", `camera="door"`) {
		t.Errorf("metrics: %d\n%s", code, metrics)
	}
	code, pic := d.get("/preview/door.jpg")
	img, err := jpeg.Decode(bytes.NewReader(pic))
	if code != 200 || err != nil || img.Bounds().Dx() < 32 {
		t.Errorf("preview: %d, %d bytes, %v", code, len(pic), err)
	}
	if code, _ := d.get("/preview/nowhere.jpg"); code != 404 {
		t.Errorf("preview of a camera that is not there: %d", code)
	}
	// A camera that is gone makes the device unhealthy, but it lives.
	d.configure(cameras("door", folder(filepath.Join(d.dir, "nowhere"))))
	eventually(t, "unhealthy", func() bool { code, b := d.get("/healthz"); return code == 503 && contains(string(b), "door") })
	d.alive()
}
