//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

// The process that holds the other end of the socket is killed: nobody says
// Stop.
func TestChildEndsWithItsParent(t *testing.T) {
	for _, source := range []string{"folder://" + pictures(t, 2, 8, 8) + "?rate=100&loop=true", "rtsp://" + silentListener(t) + "/"} {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		parentEnd, childEnd := os.NewFile(uintptr(fds[0]), "parent"), os.NewFile(uintptr(fds[1]), "child")
		// A process that holds this end, and is then killed.
		holder := exec.Command("sleep", "1000")
		holder.ExtraFiles = []*os.File{parentEnd}
		if err := holder.Start(); err != nil {
			t.Fatal(err)
		}
		mine, err := unix.FcntlInt(uintptr(fds[0]), unix.F_DUPFD_CLOEXEC, 0)
		parentEnd.Close()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := ipc.FromFD(mine)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		ring, err := camera.NewRing(2, 1000)
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		if err := conn.SendPayload(ipc.KindOpenSource, &ipc.OpenSource{Config: camera.Config{Source: source}}, int(ring.Fd())); err != nil {
			t.Fatal(err)
		}
		cmd, out := command(t)
		cmd.ExtraFiles = []*os.File{childEnd}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		childEnd.Close()
		buf := make([]byte, ipc.MaxMessage)
		for { // until it runs
			msg, err := conn.Recv(buf)
			if err != nil {
				t.Fatal(err, out)
			}
			if msg.Kind == ipc.KindMapped {
				break
			}
		}
		conn.Close()
		if err := cmd.Process.Signal(unix.Signal(0)); err != nil {
			t.Fatalf("the child has gone already: %v\n%s", err, out)
		}
		holder.Process.Kill()
		holder.Wait()

		exited := make(chan error, 1)
		go func() { exited <- cmd.Wait() }()
		select {
		case err := <-exited:
			if err != nil {
				t.Errorf("%s: the child ended with %v\n%s", source, err, out)
			}
		case <-time.After(patience):
			cmd.Process.Kill()
			<-exited
			t.Errorf("%s: the child outlived its parent\n%s", source, out)
		}
	}
}

func TestParentThatBreaksTheProtocol(t *testing.T) {
	for name, do := range map[string]func(p *parent){
		"unknown kind":          func(p *parent) { p.conn.Send(99, []byte("{}")) },
		"a child's own message": func(p *parent) { p.conn.Send(ipc.KindHello, []byte("{}")) },
		"second source":         func(p *parent) { p.conn.Send(ipc.KindOpenSource, []byte("{}")) },
		"reader without event":  func(p *parent) { p.conn.Send(ipc.KindAddReader, []byte(`{"id":1}`)) },
		"preview out of range":  func(p *parent) { p.conn.Send(ipc.KindPreviewRequest, []byte(`{"id":1,"width":9999,"quality":1}`)) },
		"not JSON":              func(p *parent) { p.conn.Send(ipc.KindRemoveReader, []byte(`x`)) },
		"more readers than fit": func(p *parent) {
			for id := range uint32(ipc.MaxReaders + 1) {
				p.addReader(id)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := start(t, camera.Config{Source: "folder://" + pictures(t, 2, 8, 8) + "?loop=true"}, 1000)
			do(p)
			if code := p.exit(); code != exitFault {
				t.Errorf("exit code %d, want %d", code, exitFault)
			}
			if !strings.Contains(p.out.String(), "protocol violation") {
				t.Errorf("the child's log does not say why:\n%s", p.out)
			}
		})
	}
}

func TestNoSourceWithoutARing(t *testing.T) {
	other, err := ipc.SealedMemfd("no ring", []byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for name, fds := range map[string][]int{"no descriptor": nil, "two": {int(other.Fd()), int(other.Fd())}, "something else": {int(other.Fd())}} {
		p := spawn(t)
		p.send(ipc.KindOpenSource, &ipc.OpenSource{Config: camera.Config{Source: "/dev/video0"}}, fds...)
		faults := p.faults()
		if len(faults) != 1 || faults[0].Kind != camera.FaultInternal {
			t.Errorf("%s: faults %+v, want one internal", name, faults)
		}
		if code := p.exit(); code != exitFault {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

func TestStopBeforeASource(t *testing.T) {
	p := spawn(t)
	p.send(ipc.KindStop, &ipc.Stop{})
	if code := p.exit(); code != exitOK {
		t.Errorf("exit code %d", code)
	}
}
