package vision

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/test/programs"
	"github.com/droverhq/drover/test/tinymodel"
)

var built string

func TestMain(m *testing.M) {
	cage.Main()
	os.Exit(programs.Run(m, &built, "drover-camera", "drover-infer"))
}

// pictures makes a folder of uniform pictures that a caged child may read.
func pictures(t *testing.T, brightness ...byte) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-pictures")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for i, b := range brightness {
		img := image.NewRGBA(image.Rect(0, 0, 32, 24))
		for p := range 32 * 24 {
			img.Set(p%32, p/32, color.RGBA{b, b, b, 255})
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%03d.png", i)))
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

type observed struct {
	mu       sync.Mutex
	events   []Event
	releases map[string]int // results per release
	labels   map[string]int
	order    []string // releases in the order in which they first answered
	lastAt   time.Time
	lastSeq  uint64
	missed   uint64
}

func (o *observed) result(r *Result) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.releases[r.Release] == 0 {
		o.order = append(o.order, r.Release)
	}
	o.releases[r.Release]++
	o.labels[r.Top[0].Label]++
	if o.lastSeq != 0 && r.Seq > o.lastSeq+1 {
		o.missed += r.Seq - o.lastSeq - 1
	}
	o.lastSeq, o.lastAt = r.Seq, time.Now()
}

func (o *observed) count(release string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.releases[release]
}

func start(t *testing.T) (*Vision, *observed) {
	t.Helper()
	return startWith(t, filepath.Join(built, "drover-infer"))
}

func startWith(t *testing.T, program string) (*Vision, *observed) {
	t.Helper()
	o := &observed{releases: map[string]int{}, labels: map[string]int{}}
	v := New(Config{
		Programs: Programs{Camera: filepath.Join(built, "drover-camera"), Infer: program},
		UID:      64310, // not shared with other tests: the limit of processes is per user id
		Logger:   slog.New(slog.DiscardHandler),
		OnResult: o.result,
		OnEvent: func(e Event) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.events = append(o.events, e)
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return v, o
}

func model(t *testing.T, path string, opts tinymodel.Options) Model {
	t.Helper()
	bytes, spec := tinymodel.Build(opts)
	return Model{Release: wire.ReleaseRef{Path: path}, Spec: spec, Read: func() ([]byte, error) { return bytes, nil }}
}

// eventually polls a condition; the bound is far above what a busy machine
// needs and is only there to end a failed test.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(60 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("never happened: %s", what)
}

func folderCamera(name, dir string) Camera {
	return Camera{Name: name, Config: camera.Config{Source: "folder://" + dir + "?rate=20&loop=true"}}
}

func TestFramesAreAnsweredAndTheModelIsSwapped(t *testing.T) {
	v, o := start(t)
	ctx := t.Context()
	if err := v.SetCameras(ctx, []Camera{folderCamera("door", pictures(t, 0, 255))}); err != nil {
		t.Fatal(err)
	}
	if err := v.Activate(ctx, model(t, "release/tiny/1", tinymodel.Options{Name: "one"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers of version 1", func() bool { return o.count("release/tiny/1") >= 10 })
	o.mu.Lock()
	if o.labels["dark"] == 0 || o.labels["bright"] == 0 {
		t.Errorf("labels %v, wanted both", o.labels)
	}
	o.missed = 0
	o.mu.Unlock()
	if err := v.Activate(ctx, model(t, "release/tiny/2", tinymodel.Options{Name: "two"})); err != nil {
		t.Fatal(err)
	}
	eventually(t, "answers of version 2", func() bool { return o.count("release/tiny/2") >= 10 })
	seen, err := v.Observe(ctx)
	if err != nil || seen.Release != "release/tiny/2" || seen.Results < 10 || seen.Restarts != 0 {
		t.Fatalf("%+v %v", seen, err)
	}
	if err := v.Return(ctx); err != nil {
		t.Fatal(err)
	}
	before := o.count("release/tiny/1")
	eventually(t, "answers of version 1 again", func() bool { return o.count("release/tiny/1") >= before+10 })
	if err := v.Return(ctx); !errors.Is(err, ErrNoModel) {
		t.Fatalf("a second return: %v", err)
	}
	view := v.View()
	if len(view.Cameras) != 1 || view.Cameras[0].State != StateRunning || !view.Cameras[0].HasResult || view.Model.Release != "release/tiny/1" {
		t.Fatalf("%+v", view)
	}
	p, err := v.Preview(ctx, "door", 320, 80)
	if err != nil || len(p.JPEG) < 100 || p.JPEG[0] != 0xff || p.JPEG[1] != 0xd8 {
		t.Fatalf("preview of %d bytes: %v", len(p.JPEG), err)
	}
	if _, err := v.Preview(ctx, "window", 320, 80); err == nil || !strings.Contains(err.Error(), "window") {
		t.Fatalf("preview of an unknown camera: %v", err)
	}
}

func TestKilledChildrenComeBack(t *testing.T) {
	v, o := start(t)
	ctx := t.Context()
	if err := v.SetCameras(ctx, []Camera{folderCamera("door", pictures(t, 0, 255))}); err != nil {
		t.Fatal(err)
	}
	if err := v.Activate(ctx, model(t, "release/tiny/1", tinymodel.Options{})); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		n := o.count("release/tiny/1")
		eventually(t, "answers", func() bool { return o.count("release/tiny/1") > n+3 })
		pid := v.View().Model.PID
		if pid == 0 {
			t.Fatal("no pid")
		}
		if err := unix.Kill(pid, unix.SIGABRT); err != nil {
			t.Fatal(err)
		}
		eventually(t, "another child", func() bool { p := v.View().Model.PID; return p != 0 && p != pid })
	}
	if err := unix.Kill(v.cameraPID(t, "door"), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "camera restarted", func() bool {
		c := v.View().Cameras[0]
		return c.Restarts == 1 && c.State == StateRunning
	})
	n := o.count("release/tiny/1")
	eventually(t, "answers after the camera's restart", func() bool { return o.count("release/tiny/1") > n+3 })
	// A hung child: stopped, it neither answers nor ends.
	pid := v.View().Model.PID
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the hung child replaced", func() bool { p := v.View().Model.PID; return p != 0 && p != pid })
}

func (v *Vision) cameraPID(t *testing.T, name string) int {
	t.Helper()
	var pid int
	if err := v.call(t.Context(), func() { pid = v.cameras[name].child.process.PID() }); err != nil {
		t.Fatal(err)
	}
	return pid
}

func TestProbe(t *testing.T) {
	v, _ := start(t)
	golden := tinymodel.Golden()
	for _, tc := range []struct {
		name   string
		model  Model
		budget wire.Budget
		reason wire.Reason
	}{
		{"good", model(t, "release/tiny/1", tinymodel.Options{}), wire.Budget{}, ""},
		{"other answers", model(t, "release/tiny/2", tinymodel.Options{Swapped: true}), wire.Budget{}, wire.ReasonGolden},
		{"too slow", model(t, "release/tiny/3", tinymodel.Options{}), wire.Budget{LatencyP99Micros: 1}, wire.ReasonLatency},
		{"too large", model(t, "release/tiny/4", tinymodel.Options{}), wire.Budget{MemoryBytes: 1}, wire.ReasonMemory},
		{"no model", Model{Release: wire.ReleaseRef{Path: "release/tiny/5"}, Spec: model(t, "", tinymodel.Options{}).Spec, Read: func() ([]byte, error) { return make([]byte, 5000), nil }}, wire.Budget{}, wire.ReasonModel},
		{"other contract", otherContract(t), wire.Budget{}, wire.ReasonContract},
	} {
		t.Run(tc.name, func(t *testing.T) {
			verdict, err := v.Probe(t.Context(), tc.model, golden, 1, tc.budget)
			if tc.reason == "" {
				if err != nil || verdict.Cases != 2 || verdict.MemoryBytes == 0 || verdict.LatencyP99 <= 0 {
					t.Fatalf("%+v %v", verdict, err)
				}
				return
			}
			var f *Failure
			if !errors.As(err, &f) || f.Reason != tc.reason {
				t.Fatalf("%v, wanted reason %s", err, tc.reason)
			}
		})
	}
}

func otherContract(t *testing.T) Model {
	m := model(t, "release/tiny/6", tinymodel.Options{})
	m.Spec.Contract.Input.Shape = []int{1, 16, 16, 3}
	return m
}

func TestBadModelNeverAnswers(t *testing.T) {
	v, o := start(t)
	ctx := t.Context()
	if err := v.SetCameras(ctx, []Camera{folderCamera("door", pictures(t, 0, 255))}); err != nil {
		t.Fatal(err)
	}
	if err := v.Activate(ctx, model(t, "release/tiny/1", tinymodel.Options{})); err != nil {
		t.Fatal(err)
	}
	bad := model(t, "release/tiny/2", tinymodel.Options{})
	bad.Read = func() ([]byte, error) { return []byte("not a model at all"), nil }
	if err := v.Activate(ctx, bad); err == nil {
		t.Fatal("activated random bytes")
	}
	n := o.count("release/tiny/1")
	eventually(t, "answers of the old model", func() bool { return o.count("release/tiny/1") > n+3 })
}

func TestCameraThatIsNotThere(t *testing.T) {
	v, o := start(t)
	if err := v.SetCameras(t.Context(), []Camera{{Name: "gone", Config: camera.Config{Source: "/dev/video93"}}}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the camera's failure is told", func() bool {
		c := v.View().Cameras[0]
		return c.State == StateFailed && strings.Contains(c.Error, "video93") && c.Restarts > 1
	})
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.events) == 0 {
		t.Error("no event")
	}
}
