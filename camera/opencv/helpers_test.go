//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
)

// silentListener accepts connections and never speaks.
func silentListener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		var conns []net.Conn
		for {
			c, err := l.Accept()
			if err != nil {
				break
			}
			conns = append(conns, c)
		}
		for _, c := range conns {
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// picture writes a picture of one value of blue, green and red each.
func picture(t *testing.T, path string, width, height int, b, g, r float64) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(b, g, r, 0), height, width, gocv.MatTypeCV8UC3)
	defer m.Close()
	if !gocv.IMWrite(path, m) {
		t.Fatalf("cannot write %s", path)
	}
}

func grayPicture(t *testing.T, path string, value float64) {
	t.Helper()
	m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(value, 0, 0, 0), 28, 28, gocv.MatTypeCV8UC1)
	defer m.Close()
	if !gocv.IMWrite(path, m) {
		t.Fatalf("cannot write %s", path)
	}
}

// clip writes a Motion JPEG of n frames whose brightness rises.
func clip(t *testing.T, path string, n int) {
	t.Helper()
	w, err := gocv.VideoWriterFile(path, "MJPG", 12, 64, 48, true)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for i := range n {
		v := float64(10 + 20*i)
		m := gocv.NewMatWithSizeFromScalar(gocv.NewScalar(v, v, v, 0), 48, 64, gocv.MatTypeCV8UC3)
		if err := w.Write(m); err != nil {
			t.Fatal(err)
		}
		m.Close()
	}
}

func source(t *testing.T, format string, args ...any) camera.Source {
	t.Helper()
	src, err := camera.ParseSource(fmt.Sprintf(format, args...))
	if err != nil {
		t.Fatal(err)
	}
	return src
}

func open(t *testing.T, src camera.Source) *Capture {
	t.Helper()
	c, err := Open(context.Background(), src, Patience{Open: 5 * time.Second, Read: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func wantFault(t *testing.T, err error, kind camera.FaultKind) {
	t.Helper()
	var fault *camera.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("error %v, want a fault of kind %s", err, kind)
	}
	if fault.Kind != kind {
		t.Fatalf("fault %s (%v), want %s", fault.Kind, err, kind)
	}
}
