package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
)

// goodbye is how long native code gets to return before the process ends
// around it.
const goodbye = time.Second

// child is the state of one camera that its goroutines share.
type child struct {
	conn   *ipc.Conn
	log    *slog.Logger
	config camera.Config // with defaults
	source camera.Source
	writer *camera.RingWriter

	readers  readers
	watch    watch
	previews *previewer
	counts   counts
}

// counts is what Stats tells. Each field stands for itself.
type counts struct {
	frames  atomic.Uint64
	dropped atomic.Uint64
	lastSeq atomic.Uint64
	lastNs  atomic.Int64
	size    atomic.Uint64 // width, and height << 32
}

// outcome is why a part of the child ended, and with what exit code the
// process should.
type outcome struct {
	code int
	err  error
}

// serve speaks the child's side of the protocol until the parent goes, the
// source ends or native code hangs. It returns the exit code, and an error
// where there is something to log. It takes conn over. When native code hangs,
// its goroutine is left behind: the process must end then.
func serve(ctx context.Context, conn *ipc.Conn, log *slog.Logger, seal func() (ipc.Sealed, error)) (int, error) {
	defer conn.Close()
	if err := conn.SendPayload(ipc.KindHello, hello()); err != nil {
		return parentGone(err)
	}
	sealed, err := seal()
	if err != nil {
		// Without its cage it must not touch a stream.
		return exitFault, errors.Join(err, conn.SendPayload(ipc.KindFault, &ipc.Fault{Kind: camera.FaultInternal, Message: clip(err.Error())}))
	}
	if err := conn.SendPayload(ipc.KindSealed, &sealed); err != nil {
		return parentGone(err)
	}
	c := &child{conn: conn, log: log}
	buf := make([]byte, ipc.MaxMessage)
	opened, err := c.receiveOpen(buf)
	if err != nil && !ended(err) {
		c.fault(camera.FaultInternal, err)
	}
	if err != nil || !opened {
		return parentGone(err)
	}
	if err := conn.SendPayload(ipc.KindMapped, &ipc.Mapped{}); err != nil {
		return parentGone(err)
	}
	first, all := c.runParts(ctx, buf)
	if all {
		c.readers.close()
		err = errors.Join(c.writer.Close(), c.previews.close())
	}
	return first.code, errors.Join(first.err, err)
}

// runParts runs the four parts of the child until the first one ends, and says
// how it did. When all is false, native code still uses what they share.
func (c *child) runParts(ctx context.Context, buf []byte) (first outcome, all bool) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	parts := []func(context.Context) outcome{
		func(context.Context) outcome { return c.receive(buf) },
		c.capture,
		c.report,
		c.previews.run,
	}
	done := make(chan outcome, len(parts))
	for _, part := range parts {
		go func() { done <- part(ctx) }()
	}
	first = <-done
	cancel()
	c.conn.Close()
	timeout := time.After(goodbye)
	for range len(parts) - 1 {
		select {
		case <-done:
		case <-timeout:
			return first, false
		}
	}
	return first, true
}

// receiveOpen waits for the source and the ring. False without an error means
// that the parent asked to stop.
func (c *child) receiveOpen(buf []byte) (bool, error) {
	msg, err := c.conn.Recv(buf)
	if err != nil {
		return false, err
	}
	defer msg.CloseFDs()
	if msg.Kind == ipc.KindStop {
		return false, nil
	}
	if msg.Kind != ipc.KindOpenSource || len(msg.FDs) != 1 {
		return false, fmt.Errorf("%w: message kind %d with %d descriptors before a source", ipc.ErrProtocol, msg.Kind, len(msg.FDs))
	}
	var open ipc.OpenSource
	if err := ipc.DecodePayload(msg.Payload, &open); err != nil {
		return false, err
	}
	c.config = open.Config.WithDefaults()
	if c.source, err = c.config.Validate(); err != nil {
		return false, err
	}
	return true, c.mapRing(msg.FDs[0])
}

// mapRing maps the ring twice: capture writes, previews read.
func (c *child) mapRing(fd int) error {
	copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("ring descriptor: %w", err)
	}
	file := os.NewFile(uintptr(copied), "ring")
	defer file.Close()
	reader, err := camera.OpenReader(file)
	if err != nil {
		return err
	}
	if c.writer, err = camera.OpenWriter(file); err != nil {
		return errors.Join(err, reader.Close())
	}
	c.previews = newPreviewer(c.conn, reader)
	return nil
}

// receive obeys the parent until it stops or goes.
func (c *child) receive(buf []byte) outcome {
	for {
		msg, err := c.conn.Recv(buf)
		if err != nil {
			code, err := parentGone(err)
			return outcome{code, err}
		}
		stop, err := c.obey(&msg)
		msg.CloseFDs()
		if err != nil {
			return outcome{exitFault, err}
		}
		if stop {
			return outcome{exitOK, nil}
		}
	}
}

func (c *child) obey(msg *ipc.Message) (stop bool, err error) {
	switch msg.Kind {
	case ipc.KindStop:
		return true, nil
	case ipc.KindAddReader:
		var add ipc.AddReader
		if err := ipc.DecodePayload(msg.Payload, &add); err != nil {
			return false, err
		}
		if len(msg.FDs) != 1 {
			return false, fmt.Errorf("%w: reader %d with %d descriptors", ipc.ErrProtocol, add.ID, len(msg.FDs))
		}
		fd := msg.FDs[0]
		msg.FDs = nil
		return false, c.readers.add(add.ID, fd, c.counts.frames.Load() > 0)
	case ipc.KindRemoveReader:
		var remove ipc.RemoveReader
		if err := ipc.DecodePayload(msg.Payload, &remove); err != nil {
			return false, err
		}
		c.readers.remove(remove.ID)
		return false, nil
	case ipc.KindPreviewRequest:
		var ask ipc.PreviewRequest
		if err := ipc.DecodePayload(msg.Payload, &ask); err != nil {
			return false, err
		}
		return false, c.previews.ask(ask)
	}
	return false, fmt.Errorf("%w: message kind %d", ipc.ErrProtocol, msg.Kind)
}

// parentGone turns the end of the conversation into an exit code: the parent's
// going is no failure of this program.
func parentGone(err error) (int, error) {
	if err == nil || ended(err) {
		return exitOK, nil
	}
	return exitFault, err
}

// fault tells the parent. That it may not listen any more is no news here: the
// receiving part notices.
func (c *child) fault(kind camera.FaultKind, err error) {
	if sendErr := c.conn.SendPayload(ipc.KindFault, &ipc.Fault{Kind: kind, Message: clip(err.Error())}); sendErr != nil {
		c.log.Warn("fault not delivered", "fault", err, "error", sendErr)
	}
}
