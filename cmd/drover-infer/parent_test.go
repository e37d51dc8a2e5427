package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// childEnv makes the test program be drover-infer.
const childEnv = "DROVER_INFER_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// parent is the test's end of a running child.
type parent struct {
	t       testing.TB
	conn    *ipc.Conn
	cmd     *exec.Cmd
	stderr  bytes.Buffer
	buf     []byte
	scratch []byte
	memfd   *os.File
}

// start starts a child and takes its greeting. The child is killed at the end
// of the test.
func start(t testing.TB) *parent {
	t.Helper()
	p := begin(t)
	var hello protocol.Hello
	p.expect(protocol.KindHello, &hello)
	if hello.Program == "" || hello.TFLite == "" || hello.OpenCV == "" {
		t.Errorf("greeting %+v", hello)
	}
	var sealed protocol.Sealed
	p.expect(protocol.KindSealed, &sealed)
	if !sealed.Seccomp && len(sealed.Gaps) == 0 {
		t.Errorf("sealed %+v", sealed)
	}
	return p
}

func begin(t testing.TB) *parent {
	t.Helper()
	conn, child, err := ipc.Pair()
	if err != nil {
		t.Fatal(err)
	}
	p := &parent{t: t, conn: conn, buf: make([]byte, ipc.MaxMessage)}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"=1")
	p.cmd.ExtraFiles = []*os.File{child}
	p.cmd.Stderr = &p.stderr
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child.Close()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	t.Cleanup(func() {
		conn.Close()
		p.cmd.Process.Kill()
		p.cmd.Wait()
	})
	return p
}

func (p *parent) send(kind byte, v any, fds ...int) {
	p.t.Helper()
	payload, err := json.Marshal(v)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.conn.Send(kind, payload, fds...); err != nil {
		p.t.Fatal(err)
	}
}

func (p *parent) recv() ipc.Message {
	p.t.Helper()
	m, err := p.conn.Recv(p.buf)
	if err != nil {
		p.cmd.Process.Kill()
		p.cmd.Wait()
		p.t.Fatalf("receive: %v; the child said: %s", err, p.stderr.String())
	}
	return m
}

func (p *parent) expect(kind byte, into any) {
	p.t.Helper()
	m := p.recv()
	if m.Kind != kind {
		p.t.Fatalf("message %d %s, want %d", m.Kind, m.Payload, kind)
	}
	if err := json.Unmarshal(m.Payload, into); err != nil {
		p.t.Fatalf("message %d: %v", kind, err)
	}
}

// result receives a result; its data is the caller's.
func (p *parent) result() protocol.Result {
	p.t.Helper()
	m := p.recv()
	defer m.CloseFDs()
	var r protocol.Result
	if m.Kind != protocol.KindResult {
		p.t.Fatalf("message %d %s, want a result", m.Kind, m.Payload)
	}
	more, err := r.Decode(m.Payload)
	if err != nil {
		p.t.Fatal(err)
	}
	r.Data = bytes.Clone(r.Data)
	if more > 0 {
		if len(m.FDs) != 1 {
			p.t.Fatalf("%d bytes are missing and %d descriptors came", more, len(m.FDs))
		}
		if r.Data, err = ipc.ReadSealed(m.FDs[0], infer.MaxTensorBytes); err != nil || len(r.Data) != more {
			p.t.Fatalf("data by memfd: %d of %d bytes, %v", len(r.Data), more, err)
		}
	} else if len(m.FDs) != 0 {
		p.t.Fatalf("%d unexpected descriptors", len(m.FDs))
	}
	return r
}

// load sends a model and returns the child's yes or no.
func (p *parent) load(model []byte, spec *infer.Spec, rt protocol.Runtime, scratch int) (*protocol.Loaded, *protocol.Refused) {
	p.t.Helper()
	file, err := ipc.SealedMemfd("model", model)
	if err != nil {
		p.t.Fatal(err)
	}
	defer file.Close()
	fds := []int{int(file.Fd())}
	if scratch > 0 {
		p.makeScratch(scratch)
		fds = append(fds, int(p.memfd.Fd()))
	}
	p.send(protocol.KindLoad, protocol.Load{Spec: spec, Runtime: rt, ScratchBytes: scratch}, fds...)
	m := p.recv()
	switch m.Kind {
	case protocol.KindLoaded:
		var l protocol.Loaded
		if err := json.Unmarshal(m.Payload, &l); err != nil {
			p.t.Fatal(err)
		}
		return &l, nil
	case protocol.KindRefused:
		var r protocol.Refused
		if err := json.Unmarshal(m.Payload, &r); err != nil {
			p.t.Fatal(err)
		}
		return nil, &r
	}
	p.t.Fatalf("message %d %s as answer to Load", m.Kind, m.Payload)
	return nil, nil
}

func (p *parent) makeScratch(size int) {
	fd, err := unix.MemfdCreate("scratch", unix.MFD_CLOEXEC)
	if err != nil {
		p.t.Fatal(err)
	}
	p.memfd = os.NewFile(uintptr(fd), "scratch")
	p.t.Cleanup(func() { p.memfd.Close() })
	if err := p.memfd.Truncate(int64(size)); err != nil {
		p.t.Fatal(err)
	}
	if p.scratch, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		p.t.Fatal(err)
	}
	scratch := p.scratch
	p.t.Cleanup(func() { unix.Munmap(scratch) })
}

// exit waits for the end of the child and returns its code and what it said.
func (p *parent) exit() (int, string) {
	p.t.Helper()
	err := p.cmd.Wait()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		p.t.Fatal(err)
	}
	return p.cmd.ProcessState.ExitCode(), strings.TrimSpace(p.stderr.String())
}

// sample reads one of the real models that stand beside the repository.
func sample(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("../../../shared/data", name))
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("no sample data here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}
