//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package main

import (
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

// patience is far above what any step takes: it only turns a hang into a
// failure.
const patience = 60 * time.Second

// parent is the other side of a child under test.
type parent struct {
	t      *testing.T
	conn   *ipc.Conn
	cmd    *exec.Cmd
	out    *output
	exited chan struct{}
	ring   *os.File
	reader *camera.RingReader
	buf    []byte
	sealed ipc.Sealed
}

// spawn starts a child without a launcher and hears its first words.
func spawn(t *testing.T) *parent {
	t.Helper()
	cmd, out := command(t)
	return spawnAs(t, out, func(file *os.File) *exec.Cmd {
		cmd.ExtraFiles = []*os.File{file}
		return cmd
	})
}

// spawnAs starts the child that prepare makes, given its end of the socket.
func spawnAs(t *testing.T, out *output, prepare func(*os.File) *exec.Cmd) *parent {
	t.Helper()
	conn, file, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	p := &parent{t: t, conn: conn, out: out, exited: make(chan struct{}), buf: make([]byte, ipc.MaxMessage)}
	p.cmd = prepare(file)
	err = p.cmd.Start()
	file.Close()
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	t.Cleanup(func() {
		conn.Close()
		p.cmd.Process.Kill()
		<-p.exited
		if t.Failed() {
			t.Logf("the child said:\n%s", p.out)
		}
	})
	var h ipc.Hello
	p.expect(ipc.KindHello, &h)
	if !strings.HasPrefix(h.OpenCV, "4.") {
		t.Errorf("OpenCV %q", h.OpenCV)
	}
	p.expect(ipc.KindSealed, &p.sealed)
	return p
}

// start spawns a child and gives it a source and a ring.
func start(t *testing.T, config camera.Config, slotBytes int) *parent {
	t.Helper()
	p := spawn(t)
	p.open(config, slotBytes)
	return p
}

// open gives the child a source and a ring.
func (p *parent) open(config camera.Config, slotBytes int) {
	p.t.Helper()
	var err error
	if p.ring, err = camera.NewRing(4, slotBytes); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.ring.Close() })
	p.send(ipc.KindOpenSource, &ipc.OpenSource{Config: config}, int(p.ring.Fd()))
	p.expect(ipc.KindMapped, &ipc.Mapped{})
	if err := camera.SealRing(p.ring); err != nil {
		p.t.Fatal(err)
	}
	if p.reader, err = camera.OpenReader(p.ring); err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { p.reader.Close() })
}

type message interface{ Check() error }

func (p *parent) send(kind byte, m message, fds ...int) {
	p.t.Helper()
	if err := p.conn.SendPayload(kind, m, fds...); err != nil {
		p.t.Fatal(err)
	}
}

// expect receives until a message of the kind comes, and decodes it.
func (p *parent) expect(kind byte, m message) []int {
	p.t.Helper()
	for {
		msg, err := p.receive()
		if err != nil {
			p.t.Fatalf("waiting for message kind %d: %v", kind, err)
		}
		if msg.Kind != kind {
			if msg.Kind == ipc.KindFault {
				p.t.Fatalf("waiting for message kind %d: fault %s", kind, msg.Payload)
			}
			msg.CloseFDs()
			continue
		}
		if err := ipc.DecodePayload(msg.Payload, m); err != nil {
			p.t.Fatal(err)
		}
		return msg.FDs
	}
}

func (p *parent) receive() (ipc.Message, error) {
	p.conn.SetReadDeadline(time.Now().Add(patience))
	return p.conn.Recv(p.buf)
}

// faults receives until the child closes its end, and returns its faults.
func (p *parent) faults() []ipc.Fault {
	p.t.Helper()
	var all []ipc.Fault
	for {
		msg, err := p.receive()
		if err == io.EOF {
			return all
		}
		if err != nil {
			p.t.Fatal(err)
		}
		msg.CloseFDs()
		if msg.Kind == ipc.KindFault {
			var f ipc.Fault
			if err := ipc.DecodePayload(msg.Payload, &f); err != nil {
				p.t.Fatal(err)
			}
			all = append(all, f)
		}
	}
}

// exit waits for the child's end and returns its exit code.
func (p *parent) exit() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(patience):
		p.t.Fatal("the child does not exit")
	}
	return p.cmd.ProcessState.ExitCode()
}

// addReader gives the child an event, and keeps its other end.
func (p *parent) addReader(id uint32) *os.File {
	p.t.Helper()
	ev, err := camera.NewEvent()
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { ev.Close() })
	p.send(ipc.KindAddReader, &ipc.AddReader{ID: id}, camera.EventFD(ev))
	return ev
}

// next waits for a frame after seq.
func (p *parent) next(ev *os.File, after uint64, f *camera.Frame) {
	p.t.Helper()
	for {
		ok, err := p.reader.Next(after, f)
		if err != nil {
			p.t.Fatal(err)
		}
		if ok {
			return
		}
		if ok, err := camera.Wait(ev, patience); err != nil || !ok {
			p.t.Fatalf("no frame after %d: %v, %v", after, ok, err)
		}
	}
}

// pictures makes a folder of n gray PNGs, all of whose pixels are 10 × their
// number from 1.
func pictures(t *testing.T, n, width, height int) string {
	t.Helper()
	dir := t.TempDir()
	for i := 1; i <= n; i++ {
		img := image.NewGray(image.Rect(0, 0, width, height))
		for j := range img.Pix {
			img.Pix[j] = byte(10 * i)
		}
		f, err := os.Create(filepath.Join(dir, fmt.Sprintf("%03d.png", i)))
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(png.Encode(f, img), f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

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
