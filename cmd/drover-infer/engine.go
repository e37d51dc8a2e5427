package main

import (
	"fmt"
	"os"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/cmd/internal/version"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/infer/prep"
	"github.com/droverhq/drover/infer/tflite"
)

// engine runs the model. All its methods belong to one goroutine on one locked
// thread.
type engine struct {
	conn     *ipc.Conn
	messages <-chan ipc.Message
	wake     chan struct{} // a source has a frame

	interp  *tflite.Interpreter
	plan    *prep.Plan // nil without a spec
	scratch []byte     // mapped read-only; nil if the parent gave none
	sources []*source
	frame   camera.Frame // of a Run request; Data stands in scratch
	buf     []byte       // for encoding results
}

func newEngine(conn *ipc.Conn, messages <-chan ipc.Message) *engine {
	return &engine{conn: conn, messages: messages, wake: make(chan struct{}, 1)}
}

// run greets, closes the cage, loads the model and then serves until Stop.
// listen is called when the cage is closed: not one byte of the parent's is
// read before.
func (e *engine) run(profile cage.Profile, listen func()) error {
	hello := protocol.Hello{Program: version.Version, TFLite: tflite.Version(), OpenCV: prep.OpenCV(), CPU: cpuModel(os.DirFS("/proc"))}
	if err := send(e.conn, protocol.KindHello, hello); err != nil {
		return err
	}
	report, err := cage.Seal(profile)
	if err != nil {
		return fmt.Errorf("close the cage: %w", err)
	}
	if err := send(e.conn, protocol.KindSealed, protocol.Sealed{Seccomp: report.Seccomp, Gaps: report.Gaps}); err != nil {
		return err
	}
	listen()
	if more, err := e.awaitModel(); err != nil || !more {
		return err
	}
	for {
		select {
		case m := <-e.messages:
			if more, err := e.handle(m); err != nil || !more {
				return err
			}
		case <-e.wake:
			for _, s := range e.sources {
				if err := e.classify(s); err != nil {
					return err
				}
			}
		}
	}
}

// awaitModel takes the Load message; false when there is nothing more to do.
func (e *engine) awaitModel() (more bool, err error) {
	m := <-e.messages
	defer m.CloseFDs()
	switch m.Kind {
	case protocol.KindStop:
		return false, nil
	case protocol.KindLoad:
	default:
		return false, fmt.Errorf("%w: message %d where Load was due", errParent, m.Kind)
	}
	loaded, err := e.load(&m)
	if refused := asRefused(err); refused != nil {
		return false, send(e.conn, protocol.KindRefused, refused)
	}
	if err != nil {
		return false, err
	}
	return true, send(e.conn, protocol.KindLoaded, loaded)
}

// handle serves one message; false when it was Stop.
func (e *engine) handle(m ipc.Message) (more bool, err error) {
	defer m.CloseFDs()
	switch m.Kind {
	case protocol.KindRun:
		return true, e.answer(&m)
	case protocol.KindAttach:
		return true, e.attach(&m)
	case protocol.KindDetach:
		return true, e.detach(&m)
	case protocol.KindStop:
		return false, nil
	}
	return false, fmt.Errorf("%w: unexpected message %d", errParent, m.Kind)
}
