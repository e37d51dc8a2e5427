// Hostile stands in for drover-infer: it behaves until it has a model, and then
// does what a line "deed NAME ARGUMENT" in the model's bytes says. So would a
// model that takes over the process that runs it. A deed that should have been
// impossible ends with exit code 99, one that failed with 0 and a line that
// tells.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host/protocol"
)

func main() { os.Exit(run()) }

type child struct {
	conn *ipc.Conn
	buf  []byte
}

func run() int {
	conn, err := ipc.FromFD(ipc.ChildFD)
	if err != nil {
		return failed(err)
	}
	c := &child{conn, make([]byte, ipc.MaxMessage)}
	sealed, err := cage.Seal(cage.Infer)
	if err != nil {
		return failed(err)
	}
	for _, m := range []struct {
		kind byte
		v    any
	}{
		{protocol.KindHello, protocol.Hello{Program: "drover-infer"}},
		{protocol.KindSealed, protocol.Sealed{Seccomp: sealed.Seccomp, Gaps: sealed.Gaps}},
	} {
		if err := c.send(m.kind, m.v); err != nil {
			return failed(err)
		}
	}
	m, err := c.next(protocol.KindLoad)
	if err != nil {
		return failed(err)
	}
	var load protocol.Load
	if err := json.Unmarshal(m.Payload, &load); err != nil {
		return failed(err)
	}
	spec, model := load.Spec, make([]byte, 64<<10)
	n, err := unix.Pread(m.FDs[0], model, 0)
	if err != nil {
		return failed(err)
	}
	_, text, _ := strings.Cut(string(model[:n]), "deed ")
	words := append(strings.Fields(text), "", "")
	return c.do(words[0], words[1], spec)
}

func (c *child) send(kind byte, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.conn.Send(kind, b)
}

// next waits for a message of a kind.
func (c *child) next(kind byte) (ipc.Message, error) {
	for {
		m, err := c.conn.Recv(c.buf)
		if err != nil || m.Kind == kind {
			return m, err
		}
		if m.Kind == protocol.KindStop {
			os.Exit(0)
		}
	}
}

func failed(err error) int {
	fmt.Fprintln(os.Stderr, "hostile: failed:", err)
	return 0
}

// tried is the exit code after a deed that should be impossible.
func tried(err error) int {
	if err != nil {
		return failed(err)
	}
	fmt.Fprintln(os.Stderr, "hostile: broke out")
	return 99
}

func (c *child) do(deed, arg string, spec *infer.Spec) int {
	switch deed {
	case "socket":
		_, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		return tried(err)
	case "read":
		_, err := os.ReadFile(arg)
		return tried(err)
	case "exec":
		return tried(unix.Exec("/bin/sh", []string{"sh", "-c", "exit 99"}, nil))
	case "ptrace":
		return tried(unix.PtraceAttach(os.Getppid()))
	case "abort":
		debug.SetTraceback("crash") // a panic ends in SIGABRT
		panic("hostile: aborts")
	case "trap":
		panic("hostile: the model's own words")
	case "allocate":
		b := make([]byte, 4<<30)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return tried(nil)
	case "spin":
		//lint:ignore SA5002 spinning is the deed
		for {
		}
	case "lie":
		spec.Contract.Output.Shape = []int{1, 5}
		if err := c.send(protocol.KindLoaded, protocol.Loaded{Contract: spec.Contract, Delegate: protocol.Builtin}); err != nil {
			return failed(err)
		}
		_, err := c.next(protocol.KindStop)
		return failed(err)
	case "ring":
		return c.ring(spec)
	}
	fmt.Fprintf(os.Stderr, "hostile: no deed %q\n", deed)
	return 98
}

// ring takes the place of the model that answers, and tries to alter the frames
// that everybody sees.
func (c *child) ring(spec *infer.Spec) int {
	if err := c.send(protocol.KindLoaded, protocol.Loaded{Contract: spec.Contract, Delegate: protocol.Builtin}); err != nil {
		return failed(err)
	}
	m, err := c.next(protocol.KindAttach)
	if err != nil {
		return failed(err)
	}
	fd := m.FDs[0]
	var errs []string
	for _, a := range []struct {
		name string
		do   func() error
	}{
		{"map it writable", func() error {
			_, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
			return err
		}},
		{"make a read-only map writable", func() error {
			b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				return nil // a reader must be able to read
			}
			return unix.Mprotect(b, unix.PROT_READ|unix.PROT_WRITE)
		}},
		{"write", func() error { _, err := unix.Pwrite(fd, []byte("x"), 4096); return err }},
		{"shrink", func() error { return unix.Ftruncate(fd, 0) }},
		{"grow", func() error { return unix.Ftruncate(fd, 1<<30) }},
		{"punch a hole", func() error {
			return unix.Fallocate(fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 4096)
		}},
	} {
		err := a.do()
		if err == nil {
			fmt.Fprintln(os.Stderr, "hostile: broke out: could", a.name)
			return 99
		}
		errno, _ := err.(syscall.Errno)
		errs = append(errs, fmt.Sprintf("%s: %v", a.name, errno))
	}
	fmt.Fprintln(os.Stderr, "hostile: failed: ring:", strings.Join(errs, ", "))
	return 97 // an end that is not in order
}
