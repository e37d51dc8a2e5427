package main

import (
	"errors"
	"fmt"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer/host/protocol"
)

// answer serves a Run request. What is wrong with the picture is the result's
// status; what is wrong with the request ends the child.
func (e *engine) answer(m *ipc.Message) error {
	var req protocol.Run
	if err := decode(m, "Run", &req); err != nil {
		return err
	}
	if len(m.FDs) != 0 || req.Bytes < 0 || req.Bytes > len(e.scratch) {
		return fmt.Errorf("%w: Run of %d bytes with %d descriptors, scratch has %d", errParent, req.Bytes, len(m.FDs), len(e.scratch))
	}
	data := e.scratch[:req.Bytes]
	result := protocol.Result{Source: protocol.RunSource, ID: req.ID, StartNs: now()}
	switch req.What {
	case protocol.RunTensor:
		if len(data) != len(e.interp.Input()) {
			result.Status = protocol.BadFrame
			result.Data = fmt.Appendf(nil, "%d bytes for an input tensor of %d", len(data), len(e.interp.Input()))
			return e.send(&result)
		}
		copy(e.interp.Input(), data)
		e.invoke(&result)
	case protocol.RunFrame, protocol.RunPrepare:
		if e.plan == nil {
			return fmt.Errorf("%w: Run %q, but Load had no spec", errParent, req.What)
		}
		e.frame = camera.Frame{Width: req.Width, Height: req.Height, Stride: req.Stride, Format: camera.PixelFormat(req.Format), Data: data}
		if e.prepare(&e.frame, &result) {
			if req.What == protocol.RunFrame {
				e.invoke(&result)
			} else {
				result.Data = e.interp.Input()
			}
		}
	default:
		return fmt.Errorf("%w: Run of unknown kind %q", errParent, req.What)
	}
	return e.send(&result)
}

// prepare fills the input tensor from a frame; false if that cannot be done,
// which result then says.
func (e *engine) prepare(f *camera.Frame, result *protocol.Result) bool {
	start := now()
	err := e.plan.Prepare(f, e.interp.Input())
	result.PrepNs = now() - start
	if err == nil {
		return true
	}
	result.Status, result.Data = protocol.BadFrame, []byte(err.Error())
	if !errors.Is(err, camera.ErrFrame) {
		result.Status = protocol.InvokeError
	}
	return false
}

// invoke runs the model and points result at its output.
func (e *engine) invoke(result *protocol.Result) {
	start := now()
	err := e.interp.Invoke()
	result.InvokeNs = now() - start
	if err != nil {
		result.Status, result.Data = protocol.InvokeError, []byte(err.Error())
		return
	}
	result.Data = e.interp.Output()
}

// send sends a result, its data as sealed memfd if it is too long for a
// message.
func (e *engine) send(r *protocol.Result) error {
	if protocol.ResultHeader+len(r.Data)+2 <= ipc.MaxMessage {
		e.buf = r.Append(e.buf[:0])
		return e.conn.Send(protocol.KindResult, e.buf)
	}
	e.buf = r.Append(e.buf[:0])
	file, err := ipc.SealedMemfd("drover-result", r.Data)
	if err != nil {
		return err
	}
	defer file.Close()
	return e.conn.Send(protocol.KindResult, e.buf[:protocol.ResultHeader], int(file.Fd()))
}

// now is CLOCK_MONOTONIC in nanoseconds, the clock of Frame.CapturedAt.
func now() int64 { return int64(camera.Monotonic()) }
