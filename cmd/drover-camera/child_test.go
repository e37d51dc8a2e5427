//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package main

import (
	"bytes"
	"fmt"
	"image"
	"image/jpeg"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

func TestFolderBecomesFramesAtTheRateAsked(t *testing.T) {
	const rate, pics, want = 50, 5, 40
	dir := pictures(t, pics, 64, 48)
	p := start(t, camera.Config{Source: fmt.Sprintf("folder://%s?rate=%d&loop=true", dir, rate)}, camera.DefaultSlotBytes)
	if !p.sealed.Seccomp {
		t.Logf("no seccomp here: %v", p.sealed.Gaps)
	}
	ev := p.addReader(1)
	var opened ipc.Opened
	p.expect(ipc.KindOpened, &opened)
	if opened != (ipc.Opened{Width: 64, Height: 48, FPS: rate, Backend: "folder"}) {
		t.Errorf("opened %+v", opened)
	}

	var f, first camera.Frame
	for n := range want {
		before := camera.Monotonic()
		p.next(ev, f.Seq, &f)
		if n == 0 {
			first = f
		}
		if f.Format != camera.BGR8 || f.Width != 64 || f.Height != 48 {
			t.Fatalf("frame %d: %d×%d %v", f.Seq, f.Width, f.Height, f.Format)
		}
		if w := byte(10 * ((f.Seq-1)%pics + 1)); f.Data[0] != w || f.Data[len(f.Data)-1] != w {
			t.Fatalf("frame %d shows picture %d, want %d", f.Seq, f.Data[0]/10, w/10)
		}
		if f.CapturedAt > camera.Monotonic() || before-f.CapturedAt > patience {
			t.Fatalf("frame %d: captured at %v, now %v", f.Seq, f.CapturedAt, camera.Monotonic())
		}
	}
	// However busy the machine is, a replay never runs ahead of its schedule.
	frames, took := f.Seq-first.Seq, f.CapturedAt-first.CapturedAt
	if least := time.Duration(float64(frames-1) / rate * float64(time.Second)); took < least {
		t.Errorf("%d frames in %v: faster than %d a second", frames, took, rate)
	}

	var stats ipc.Stats
	p.expect(ipc.KindStats, &stats)
	if stats.Frames != stats.LastSeq || stats.LastSeq == 0 || stats.Width != 64 || stats.Height != 48 || stats.Dropped != 0 || stats.FPS <= 0 {
		t.Errorf("stats %+v", stats)
	}
	p.send(ipc.KindStop, &ipc.Stop{})
	if faults := p.faults(); len(faults) != 0 {
		t.Errorf("faults %v", faults)
	}
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d after Stop", code)
	}
}

func TestPreviewIsAJPEG(t *testing.T) {
	p := start(t, camera.Config{Source: "folder://" + pictures(t, 3, 400, 300) + "?rate=100&loop=true"}, camera.DefaultSlotBytes)
	p.expect(ipc.KindOpened, &ipc.Opened{})
	p.next(p.addReader(1), 0, new(camera.Frame))
	fds := -1
	for id := uint64(1); id <= 60; id++ {
		p.send(ipc.KindPreviewRequest, &ipc.PreviewRequest{ID: id, Width: 200, Quality: 80})
		var reply ipc.PreviewReply
		got := p.expect(ipc.KindPreviewReply, &reply)
		if reply.ID != id || reply.Missing != "" || len(got) != 1 {
			t.Fatalf("reply %+v with %d descriptors", reply, len(got))
		}
		data, err := ipc.ReadSealed(got[0], ipc.MaxPreviewBytes)
		unix.Close(got[0])
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if s := img.Bounds().Size(); s.X != 200 || s.Y != 150 || reply.Width != 200 || reply.Height != 150 {
			t.Fatalf("JPEG of %v, reply %+v", s, reply)
		}
		r, _, _, _ := img.At(100, 75).RGBA()
		if want := int(10 * ((reply.Seq-1)%3 + 1)); int(r>>8) < want-3 || int(r>>8) > want+3 {
			t.Fatalf("preview of frame %d has brightness %d, want %d", reply.Seq, r>>8, want)
		}
		if id == 10 {
			fds = p.childFDs()
		}
	}
	if after := p.childFDs(); after > fds {
		t.Errorf("the child had %d descriptors after 10 previews and %d after 60", fds, after)
	}
}

// childFDs counts the child's descriptors, or is 0 where that may not be seen.
func (p *parent) childFDs() int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		p.t.Logf("descriptors of the child cannot be counted: %v", err)
		return 0
	}
	return len(entries)
}

func TestPreviewBeforeTheFirstFrame(t *testing.T) {
	p := start(t, camera.Config{Source: "http://" + silentListener(t) + "/"}, 1000)
	for id := uint64(1); id <= 20; id++ {
		p.send(ipc.KindPreviewRequest, &ipc.PreviewRequest{ID: id, Width: 200, Quality: 80})
	}
	seen := map[uint64]bool{}
	for range 20 {
		var reply ipc.PreviewReply
		fds := p.expect(ipc.KindPreviewReply, &reply)
		if reply.Missing == "" || len(fds) != 0 || seen[reply.ID] {
			t.Fatalf("reply %+v with %d descriptors", reply, len(fds))
		}
		seen[reply.ID] = true
	}
	// Stop works although OpenCV is busy waiting for the server.
	p.send(ipc.KindStop, &ipc.Stop{})
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}

func TestReadersComeAndGo(t *testing.T) {
	p := start(t, camera.Config{Source: "folder://" + pictures(t, 2, 8, 8) + "?rate=200&loop=true"}, 1000)
	p.expect(ipc.KindOpened, &ipc.Opened{})
	first, second := p.addReader(1), p.addReader(2)
	for _, ev := range []*os.File{first, second, first, second} {
		if ok, err := camera.Wait(ev, patience); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	p.send(ipc.KindRemoveReader, &ipc.RemoveReader{ID: 1})
	p.send(ipc.KindRemoveReader, &ipc.RemoveReader{ID: 99})
	// Messages are obeyed in order: a reader added later is signalled later.
	third := p.addReader(3)
	if ok, err := camera.Wait(third, patience); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if _, err := camera.Wait(first, 0); err != nil { // takes what was signalled before
		t.Fatal(err)
	}
	for range 5 {
		if ok, err := camera.Wait(second, patience); !ok || err != nil {
			t.Fatal(ok, err)
		}
	}
	if ok, err := camera.Wait(first, 0); ok || err != nil {
		t.Errorf("a removed reader is still signalled: %v, %v", ok, err)
	}
}

func TestEndOfAReplay(t *testing.T) {
	p := start(t, camera.Config{Source: "folder://" + pictures(t, 7, 8, 8) + "?rate=500"}, 1000)
	faults := p.faults()
	if len(faults) != 1 || faults[0].Kind != camera.FaultEnd {
		t.Errorf("faults %+v, want one end of stream", faults)
	}
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
	var f camera.Frame
	if ok, err := p.reader.Next(0, &f); !ok || err != nil || f.Seq != 7 || f.Data[0] != 70 {
		t.Errorf("the last frame in the ring is %d (%v, %v), want 7", f.Seq, ok, err)
	}
}

func TestFaultsAreTyped(t *testing.T) {
	dir := t.TempDir()
	junk := filepath.Join(dir, "junk.avi")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk"), 1000), 0o644); err != nil {
		t.Fatal(err)
	}
	silent := silentListener(t)
	const short = 700 * time.Millisecond
	for _, tt := range []struct {
		name   string
		config camera.Config
		kind   camera.FaultKind
		say    string
	}{
		{"device missing", camera.Config{Source: "/dev/video77"}, camera.FaultNoSource, "/dev/video77"},
		{"folder missing", camera.Config{Source: "folder:///nothing/here"}, camera.FaultNoSource, "/nothing/here"},
		{"no video", camera.Config{Source: "file://" + junk}, camera.FaultDecode, "junk.avi"},
		{"http that never speaks", camera.Config{Source: "http://u:geheim@" + silent + "/v?geheim", OpenTimeout: short}, camera.FaultNoAnswer, "http://u:xxxxx@"},
		{"rtsp that never speaks", camera.Config{Source: "rtsp://u:geheim@" + silent + "/v", OpenTimeout: short}, camera.FaultNoAnswer, "rtsp://u:xxxxx@"},
		{"frames larger than the ring", camera.Config{Source: "folder://" + pictures(t, 1, 100, 100)}, camera.FaultTooLarge, "100×100"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, tt.config, 1000)
			faults := p.faults()
			if len(faults) != 1 || faults[0].Kind != tt.kind || !strings.Contains(faults[0].Message, tt.say) {
				t.Errorf("faults %+v, want one %s that says %q", faults, tt.kind, tt.say)
			}
			if code := p.exit(); code != exitFault {
				t.Errorf("exit code %d, want %d", code, exitFault)
			}
			if strings.Contains(p.out.String()+fmt.Sprint(faults), "geheim") {
				t.Errorf("a password was shown: %v\n%s", faults, p.out)
			}
		})
	}
}

func TestStreamThatGoesSilentIsStalled(t *testing.T) {
	pic := jpegOf(t, image.Pt(64, 48))
	quit := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		for range 20 {
			fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(pic), pic)
		}
		w.(http.Flusher).Flush()
		select {
		case <-quit:
		case <-r.Context().Done():
		}
	}))
	defer srv.Close()
	defer close(quit)
	p := start(t, camera.Config{Source: srv.URL, StallAfter: 300 * time.Millisecond, StuckAfter: 1500 * time.Millisecond}, camera.DefaultSlotBytes)
	faults := p.faults()
	if len(faults) < 2 {
		t.Fatalf("faults %+v: want one while it hopes and one when it gives up", faults)
	}
	for _, f := range faults {
		if f.Kind != camera.FaultStalled {
			t.Errorf("fault %+v, want stalled", f)
		}
	}
	if code := p.exit(); code != exitFault && code != exitStuck {
		t.Errorf("exit code %d", code)
	}
	var f camera.Frame
	if ok, err := p.reader.Next(0, &f); !ok || err != nil {
		t.Errorf("no frame came before: %v, %v", ok, err)
	}
}

// jpegOf is a black JPEG.
func jpegOf(t *testing.T, size image.Point) []byte {
	t.Helper()
	var buf bytes.Buffer
	if err := jpeg.Encode(&buf, image.NewRGBA(image.Rectangle{Max: size}), nil); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}
