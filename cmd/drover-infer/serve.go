package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/cage"
)

// errParent is wrapped by errors that mean the parent broke the protocol.
var errParent = errors.New("the parent broke the protocol")

// serve is the child's life on a connected socket. It returns nil when the
// parent is done with the child, even while an inference hangs: the process
// then ends and takes it along.
func serve(conn *ipc.Conn, profile cage.Profile) error {
	box := &inbox{conn: conn, messages: make(chan ipc.Message), ended: make(chan error, 1)}
	finished := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: delegates may keep state in the thread
		finished <- newEngine(conn, box.messages).run(profile, box.start)
	}()
	select {
	case err := <-finished:
		return err
	case err := <-box.ended:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
}

// inbox receives the parent's messages.
type inbox struct {
	conn *ipc.Conn

	// out
	messages chan ipc.Message // payloads are the receiver's
	ended    chan error       // why there will be no more
}

// start begins to receive.
func (b *inbox) start() {
	go func() {
		buf := make([]byte, ipc.MaxMessage)
		for {
			m, err := b.conn.Recv(buf)
			if err != nil {
				b.ended <- err
				return
			}
			m.Payload = bytes.Clone(m.Payload)
			b.messages <- m
		}
	}()
}

// decode reads a control payload: one JSON object without unknown keys.
func decode(m *ipc.Message, what string, into any) error {
	d := json.NewDecoder(bytes.NewReader(m.Payload))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%w: %s: %v", errParent, what, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("%w: %s: more than one JSON value", errParent, what)
	}
	return nil
}

// send encodes a control message.
func send(conn *ipc.Conn, kind byte, v any) error {
	payload, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode message %d: %w", kind, err)
	}
	return conn.Send(kind, payload)
}
