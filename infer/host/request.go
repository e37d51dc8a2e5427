package host

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// Answer is what one inference gave.
type Answer struct {
	Output []byte // the raw output tensor, in the caller's buffer where that was large enough
	Prep   time.Duration
	Invoke time.Duration
}

// request is one Load or Run in flight. The receiving goroutine fills it in
// under Child.mu and closes answered; then it is the requester's.
type request struct {
	id   uint64      // of a Run
	spec *infer.Spec // of a Load
	out  []byte

	answered     chan struct{}
	loaded       protocol.Loaded
	prep, invoke time.Duration
	err          error
}

// Load hands the model over and waits until it has run once. A model that the
// child cannot run is a *Refusal, and the child is then of no further use.
// spec nil only reads the contract off the model: pictures cannot be asked
// for then, tensors can. A child takes one model in its life. The end of ctx
// kills it.
func (c *Child) Load(ctx context.Context, model []byte, spec *infer.Spec, rt protocol.Runtime) (protocol.Loaded, error) {
	if len(model) > infer.MaxModelBytes {
		return protocol.Loaded{}, &Refusal{Kind: protocol.RefusedModel, Message: fmt.Sprintf("%d bytes, allowed %d", len(model), infer.MaxModelBytes)}
	}
	msg := protocol.Load{Runtime: rt, ScratchBytes: scratchBytes}
	if spec != nil {
		if err := spec.Check(); err != nil {
			return protocol.Loaded{}, fmt.Errorf("infer/host: load: %w", err)
		}
		msg.Spec = blankLabels(spec)
	}
	payload, err := protocol.Encode(msg)
	if err != nil {
		return protocol.Loaded{}, err
	}
	if err := c.take(ctx, empty); err != nil {
		return protocol.Loaded{}, err
	}
	defer c.give()
	if c.scratch, err = newScratch(); err != nil {
		return protocol.Loaded{}, err
	}
	file, err := ipc.SealedMemfd("drover-model", model)
	if err != nil {
		return protocol.Loaded{}, fmt.Errorf("infer/host: load: %w", err)
	}
	defer file.Close()

	r := &request{spec: spec, answered: make(chan struct{})}
	c.mu.Lock()
	c.phase, c.waiting, c.spec = loading, r, spec != nil
	c.mu.Unlock()
	if err := c.exchange(ctx, r, protocol.KindLoad, payload, int(file.Fd()), int(c.scratch.file.Fd())); err != nil {
		return protocol.Loaded{}, err
	}
	return r.loaded, nil
}

// Classify runs one picture through preprocessing and model. The output goes
// into out if that is large enough. The end of ctx during the inference kills
// the child; while others are served first it does not.
func (c *Child) Classify(ctx context.Context, f *camera.Frame, out []byte) (Answer, error) {
	return c.runFrame(ctx, protocol.RunFrame, f, out)
}

// Prepare is the preprocessing alone: it returns the bytes of the input tensor.
func (c *Child) Prepare(ctx context.Context, f *camera.Frame, out []byte) ([]byte, error) {
	a, err := c.runFrame(ctx, protocol.RunPrepare, f, out)
	return a.Output, err
}

func (c *Child) runFrame(ctx context.Context, what protocol.RunWhat, f *camera.Frame, out []byte) (Answer, error) {
	if err := f.Check(); err != nil {
		return Answer{}, fmt.Errorf("infer/host: %s: %w", what, err)
	}
	return c.run(ctx, protocol.Run{
		What: what, Width: f.Width, Height: f.Height, Stride: f.Stride, Format: uint32(f.Format),
	}, f.Data, out)
}

// Invoke runs the model on the bytes of an input tensor, which must have the
// contract's size.
func (c *Child) Invoke(ctx context.Context, tensor, out []byte) (Answer, error) {
	return c.run(ctx, protocol.Run{What: protocol.RunTensor}, tensor, out)
}

func (c *Child) run(ctx context.Context, msg protocol.Run, data, out []byte) (Answer, error) {
	if err := c.take(ctx, loaded); err != nil {
		return Answer{}, err
	}
	defer c.give()
	c.mu.Lock()
	in, want, spec := c.contract.Input.Bytes(), c.contract.Output.Bytes(), c.spec
	c.mu.Unlock()
	switch {
	case msg.What == protocol.RunTensor && len(data) != in:
		return Answer{}, fmt.Errorf("infer/host: tensor: %w: %d input bytes, the contract says %d", infer.ErrContract, len(data), in)
	case msg.What != protocol.RunTensor && !spec:
		return Answer{}, fmt.Errorf("%w: %s needs a model that was loaded with its spec", ErrState, msg.What)
	case msg.What == protocol.RunPrepare:
		want = in
	}
	if cap(out) < want {
		out = make([]byte, want)
	}
	c.lastID++
	msg.ID, msg.Bytes = c.lastID, copy(c.scratch.mem, data)
	payload, err := protocol.Encode(msg)
	if err != nil {
		return Answer{}, err
	}
	r := &request{id: msg.ID, out: out[:want], answered: make(chan struct{})}
	c.mu.Lock()
	c.waiting = r
	c.mu.Unlock()
	if err := c.exchange(ctx, r, protocol.KindRun, payload); err != nil {
		return Answer{}, err
	}
	return Answer{Output: r.out, Prep: r.prep, Invoke: r.invoke}, nil
}

// take waits for the turn and checks that the child is in the phase that the
// request needs.
func (c *Child) take(ctx context.Context, need phase) error {
	select {
	case <-c.turn:
	case <-c.done:
		return c.ended()
	case <-ctx.Done():
		return fmt.Errorf("infer/host: waiting for other requests: %w", ctx.Err())
	}
	c.mu.Lock()
	have, closing := c.phase, c.closing
	c.mu.Unlock()
	var err error
	select {
	case <-c.done:
		err = c.ended()
	default:
		switch {
		case closing:
			err = ErrClosed
		case ctx.Err() != nil:
			err = fmt.Errorf("infer/host: not begun: %w", ctx.Err())
		case have != need && need == empty:
			err = fmt.Errorf("%w: a child takes one model in its life", ErrState)
		case have != need:
			err = fmt.Errorf("%w: no model is loaded", ErrState)
		}
	}
	if err != nil {
		c.give()
	}
	return err
}

func (c *Child) give() { c.turn <- struct{}{} }

// exchange sends the request and waits for its answer, for the child's end, or
// for the end of ctx, which is the child's as well.
func (c *Child) exchange(ctx context.Context, r *request, kind byte, payload []byte, fds ...int) error {
	if err := c.send(kind, payload, fds...); err != nil {
		c.abandon(r)
		return err
	}
	select {
	case <-r.answered:
		return r.err
	case <-c.done:
	case <-ctx.Done():
		c.condemn(Killed, fmt.Errorf("no answer in time: %w", ctx.Err()))
	}
	if c.abandon(r) {
		return c.ended()
	}
	return r.err // answered after all
}

// abandon takes back a request, so that its buffer is the caller's again. It
// says whether the request was still unanswered.
func (c *Child) abandon(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waiting != r {
		return false
	}
	c.waiting = nil
	return true
}

// send sends one message. A child that does not take it is killed.
func (c *Child) send(kind byte, payload []byte, fds ...int) error {
	c.conn.SetWriteDeadline(time.Now().Add(sendLimit))
	err := c.conn.Send(kind, payload, fds...)
	if err == nil {
		return nil
	}
	select {
	case <-c.done:
	case <-c.process.Done():
	default:
		// A broken pipe means that it is dying by itself; give it the chance
		// to say of what.
		if os.IsTimeout(err) || !waitFor(c.process.Done(), stopGrace) {
			c.condemn(Killed, fmt.Errorf("it takes no messages: %w", err))
		}
	}
	return c.ended()
}

// Attach gives the child a ring of frames and the eventfd that tells of new
// ones; results arrive at OnResult with this source number. A frame that is
// older than maxAge when its turn comes is not classified, only reported
// (protocol.TooOld); 0 means no limit. Choose a number that was not used before,
// for results under way bear the old one. The files stay the caller's.
func (c *Child) Attach(source uint32, ring, event *os.File, maxAge time.Duration) error {
	if source == protocol.RunSource {
		return fmt.Errorf("%w: source number %d is reserved", ErrState, source)
	}
	payload, err := protocol.Encode(protocol.Attach{Source: source, MaxAgeMicros: max(0, maxAge).Microseconds()})
	if err != nil {
		return err
	}
	c.mu.Lock()
	ready, again := c.phase == loaded && c.spec, c.sources[source]
	if ready && !again {
		c.sources[source] = true
	}
	c.mu.Unlock()
	if !ready || again {
		return fmt.Errorf("%w: ring %d: loaded with its spec %v, attached %v", ErrState, source, ready, again)
	}
	// Not File.Fd, which would make the caller's eventfd block.
	return control(ring, func(ringFD int) error {
		return control(event, func(eventFD int) error {
			return c.send(protocol.KindAttach, payload, ringFD, eventFD)
		})
	})
}

// control runs fn with the file's descriptor, which stays open meanwhile.
func control(f *os.File, fn func(fd int) error) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("infer/host: %s: %w", f.Name(), err)
	}
	var inner error
	if err := raw.Control(func(fd uintptr) { inner = fn(int(fd)) }); err != nil {
		return fmt.Errorf("infer/host: %s: %w", f.Name(), err)
	}
	return inner
}

// Detach ends the reading of a ring. Results under way are dropped.
func (c *Child) Detach(source uint32) error {
	payload, err := protocol.Encode(protocol.Detach{Source: source})
	if err != nil {
		return err
	}
	c.mu.Lock()
	attached := c.sources[source]
	if attached {
		c.sources[source] = false
	}
	c.mu.Unlock()
	if !attached {
		return fmt.Errorf("%w: ring %d is not attached", ErrState, source)
	}
	return c.send(protocol.KindDetach, payload)
}
