//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package main

import (
	"context"
	"fmt"
	"image"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/cage"
)

// readable is a folder that another user may read too, with this program in it.
func readable(t *testing.T) (dir, program string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "drover-camera")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	self, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	program = filepath.Join(dir, "drover-camera")
	out, err := os.OpenFile(program, os.O_CREATE|os.O_WRONLY, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, self); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return dir, program
}

// caged starts the child as droverd does: launcher stage, Landlock, own user,
// seccomp.
func caged(t *testing.T, program string, paths ...string) *parent {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	out := new(output)
	return spawnAs(t, out, func(file *os.File) *exec.Cmd {
		cmd, err := cage.Command(ctx, cage.Options{
			Profile: cage.Camera, Program: program, Env: []string{asChild + "=1"},
			ReadPaths: paths, Stderr: out, Files: []*os.File{file},
		})
		if err != nil {
			t.Fatal(err)
		}
		return cmd
	})
}

// Everything a camera child must do, it can do from inside its cage.
func TestSourcesWorkInTheCage(t *testing.T) {
	dir, program := readable(t)
	pics := filepath.Join(dir, "pics")
	if err := os.Rename(pictures(t, 3, 64, 48), pics); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(pics, 0o755); err != nil {
		t.Fatal(err)
	}
	avi := filepath.Join(dir, "clip.avi")
	w, err := gocv.VideoWriterFile(avi, "MJPG", 20, 64, 48, true)
	if err != nil {
		t.Fatal(err)
	}
	m := gocv.NewMatWithSize(48, 64, gocv.MatTypeCV8UC3)
	for range 5 {
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
	}
	m.Close()
	w.Close()
	pic := jpegOf(t, image.Pt(64, 48))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "multipart/x-mixed-replace; boundary=frame")
		for r.Context().Err() == nil { // as fast as they are taken
			fmt.Fprintf(w, "--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n", len(pic), pic)
		}
	}))
	defer srv.Close()

	for _, tt := range []struct {
		name, url string
		paths     []string
	}{
		{"folder", "folder://" + pics + "?loop=true&rate=50", []string{pics}},
		{"file", "file://" + avi + "?loop=true&rate=50", []string{avi}},
		{"http", srv.URL, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := caged(t, program, tt.paths...)
			if len(p.sealed.Gaps) > 0 || !p.sealed.Seccomp {
				t.Logf("the cage has gaps here: seccomp %v, %q", p.sealed.Seccomp, p.sealed.Gaps)
			}
			p.open(camera.Config{Source: tt.url}, camera.DefaultSlotBytes)
			ev := p.addReader(1)
			var f camera.Frame
			for range 5 {
				p.next(ev, f.Seq, &f)
			}
			if f.Width != 64 || f.Height != 48 {
				t.Errorf("frame of %d×%d", f.Width, f.Height)
			}
			p.send(ipc.KindPreviewRequest, &ipc.PreviewRequest{ID: 1, Width: 64, Quality: 80})
			var reply ipc.PreviewReply
			fds := p.expect(ipc.KindPreviewReply, &reply)
			if reply.Missing != "" || len(fds) != 1 {
				t.Fatalf("preview %+v", reply)
			}
			msg := ipc.Message{FDs: fds}
			msg.CloseFDs()
			p.send(ipc.KindStop, &ipc.Stop{})
			if code := p.exit(); code != exitOK {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

func TestOtherFilesAreOutOfReachInTheCage(t *testing.T) {
	dir, program := readable(t)
	p := caged(t, program)
	for _, gap := range p.sealed.Gaps {
		t.Logf("gap: %s", gap)
	}
	p.open(camera.Config{Source: "folder://" + dir}, 1000)
	faults := p.faults()
	if len(faults) != 1 || faults[0].Kind != camera.FaultNoSource {
		if len(p.sealed.Gaps) > 0 {
			t.Skipf("the cage has gaps here: %q", p.sealed.Gaps)
		}
		t.Errorf("faults %+v, want one that the folder cannot be opened", faults)
	}
}
