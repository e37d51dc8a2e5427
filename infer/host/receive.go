package host

import (
	"errors"
	"fmt"
	"io"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// messageBytes bounds the texts in results.
const messageBytes = 4096

func isEOF(err error) bool { return errors.Is(err, io.EOF) }

// receive handles messages until the child is gone, and then settles why.
func (c *Child) receive(buf []byte) {
	drained := make(chan struct{})
	go func() {
		// What the dead child still said is read, but not for ever: somebody
		// else may hold its end of the pair.
		<-c.process.Done()
		c.conn.SetReadDeadline(time.Now().Add(time.Second))
		close(drained)
	}()
	err := c.handleAll(buf)
	select {
	case <-c.process.Done():
	default:
		if !isEOF(err) {
			c.condemn(Protocol, err)
		} else if !waitFor(c.process.Done(), stopGrace) {
			c.condemn(Protocol, errors.New("it closed its socket and stayed"))
		}
	}
	<-drained
	c.settle()
}

func waitFor(ch <-chan struct{}, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ch:
		return true
	case <-t.C:
		return false
	}
}

// handleAll returns io.EOF, or what is wrong.
func (c *Child) handleAll(buf []byte) error {
	for {
		m, err := c.conn.Recv(buf)
		if err != nil {
			return err
		}
		err = c.handle(&m)
		m.CloseFDs()
		if err != nil {
			return err
		}
	}
}

// handle takes one message; an error is a breach of the protocol.
func (c *Child) handle(m *ipc.Message) error {
	if m.Kind != protocol.KindResult && len(m.FDs) > 0 {
		return fmt.Errorf("message %d came with %d descriptors", m.Kind, len(m.FDs))
	}
	switch m.Kind {
	case protocol.KindResult:
		return c.handleResult(m)
	case protocol.KindLoaded:
		var v protocol.Loaded
		if err := protocol.Decode(m.Payload, &v); err != nil {
			return err
		}
		return c.handleLoaded(v)
	case protocol.KindRefused:
		var v protocol.Refused
		if err := protocol.Decode(m.Payload, &v); err != nil {
			return err
		}
		return c.handleRefused(v)
	case protocol.KindFault:
		var v protocol.Fault
		if err := protocol.Decode(m.Payload, &v); err != nil {
			return err
		}
		// At most one line a second, for the child decides how often it comes.
		if now := time.Now(); now.Sub(c.faultTime) >= time.Second {
			c.faultTime = now
			c.logger.Warn(ProgramName+" reports a fault", "pid", c.process.PID(), "message", clean(v.Message, 400))
		}
		return nil
	}
	return fmt.Errorf("message of unexpected kind %d", m.Kind)
}

func (c *Child) handleLoaded(v protocol.Loaded) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != loading {
		return errors.New("it reports a loaded model that it was not given")
	}
	switch v.Delegate {
	case protocol.Builtin, protocol.XNNPACK, protocol.External:
	default:
		return fmt.Errorf("it reports the unknown delegate %q", clean(string(v.Delegate), 40))
	}
	if v.LoadMicros < 0 || v.WarmMicros < 0 {
		return errors.New("it reports a negative time")
	}
	if err := v.Contract.Check(); err != nil {
		return fmt.Errorf("it reports a model that is no classifier: %w", err)
	}
	r := c.waiting
	if r != nil && r.spec != nil {
		if err := v.Contract.Diff(r.spec.Contract); err != nil {
			return fmt.Errorf("it accepted a model of another contract: %w", err)
		}
	}
	v.Fallback = clean(v.Fallback, 2000)
	v.Contract.Input.Name = clean(v.Contract.Input.Name, 200)
	v.Contract.Output.Name = clean(v.Contract.Output.Name, 200)
	c.contract, c.phase = v.Contract, loaded
	if r != nil {
		c.waiting = nil
		r.loaded = v
		close(r.answered)
	}
	return nil
}

func (c *Child) handleRefused(v protocol.Refused) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != loading {
		return errors.New("it refuses a model that it was not given")
	}
	switch v.Kind {
	case protocol.RefusedModel, protocol.RefusedCustomOp, protocol.RefusedContract,
		protocol.RefusedDelegate, protocol.RefusedMemory, protocol.RefusedInternal:
	default:
		return fmt.Errorf("refusal of unknown kind %q", clean(string(v.Kind), 40))
	}
	c.phase = refused
	if r := c.waiting; r != nil {
		c.waiting = nil
		r.err = &Refusal{Kind: v.Kind, Message: clean(v.Message, 2000)}
		close(r.answered)
	}
	return nil
}

func (c *Child) handleResult(m *ipc.Message) error {
	more, err := c.result.Decode(m.Payload)
	if err != nil {
		return err
	}
	if c.result.Status != protocol.OK && (more > 0 || len(c.result.Data) > messageBytes) {
		return fmt.Errorf("message of %d bytes in a result", max(more, len(c.result.Data)))
	}
	if (more > 0) != (len(m.FDs) == 1) || len(m.FDs) > 1 {
		return fmt.Errorf("result of %d + %d bytes with %d descriptors", len(c.result.Data), more, len(m.FDs))
	}
	if c.result.Source == protocol.RunSource {
		return c.handleAnswer(m, more)
	}
	c.mu.Lock()
	attached, known := c.sources[c.result.Source]
	want := c.contract.Output.Bytes()
	c.mu.Unlock()
	switch {
	case !known:
		return fmt.Errorf("result for ring %d, which was never attached", c.result.Source)
	case c.result.Status == protocol.OK && len(c.result.Data) != want:
		return fmt.Errorf("output of %d bytes for ring %d, the contract says %d", len(c.result.Data)+more, c.result.Source, want)
	case !attached:
		return nil // was under way when it was detached
	}
	if fn := c.onResult.Load(); fn != nil {
		(*fn)(&c.result)
	}
	return nil
}

// handleAnswer gives a result to the request that waits for it.
func (c *Child) handleAnswer(m *ipc.Message, more int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.waiting
	if r == nil || r.spec != nil || r.id == 0 || r.id != c.result.ID {
		if c.reason != nil || c.closing {
			return nil // the request was given up together with the child
		}
		return fmt.Errorf("answer to request %d, which nobody waits for", c.result.ID)
	}
	if c.result.Status == protocol.OK {
		if n := len(c.result.Data) + more; n != len(r.out) {
			return fmt.Errorf("tensor of %d bytes for request %d, the contract says %d", n, r.id, len(r.out))
		}
		if more > 0 {
			if err := readSealed(m.FDs[0], r.out); err != nil {
				return err
			}
		} else {
			copy(r.out, c.result.Data)
		}
		r.prep, r.invoke = time.Duration(c.result.PrepNs), time.Duration(c.result.InvokeNs)
	} else {
		r.err = &RunError{Status: c.result.Status, Message: clean(string(c.result.Data), messageBytes)}
	}
	c.waiting = nil
	close(r.answered)
	return nil
}

// readSealed fills out from a memfd that holds exactly as much and that nobody
// can change any more.
func readSealed(fd int, out []byte) error {
	const need = unix.F_SEAL_WRITE | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW
	seals, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	if err != nil || seals&need != need {
		return fmt.Errorf("tensor in a descriptor that is no sealed memfd (seals %#x, %v)", seals, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Size != int64(len(out)) {
		return fmt.Errorf("tensor in a memfd of %d bytes, expected %d (%v)", st.Size, len(out), err)
	}
	for off := 0; off < len(out); {
		n, err := unix.Pread(fd, out[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return fmt.Errorf("read the tensor's memfd at %d of %d: %v", off, len(out), err)
		}
		off += n
	}
	return nil
}

// settle says why the child is gone and frees what needs no further user.
func (c *Child) settle() {
	status, _ := c.process.State().Sys().(syscall.WaitStatus)
	c.mu.Lock()
	d := c.reason
	switch {
	case d != nil:
	case status.Signaled():
		d = &Death{Kind: Signaled, Signal: status.Signal(), PID: c.process.PID()}
	case c.closing && status.ExitStatus() == 0:
	default:
		d = &Death{Kind: Exited, Code: status.ExitStatus(), PID: c.process.PID()}
	}
	if d != nil && c.reason == nil && c.closing {
		d = nil // stopped by Close, by whatever means
	}
	if d != nil {
		d.LastWords, d.Stderr = c.stderr.lastWords()
		c.err = d
	}
	c.mu.Unlock()
	c.conn.Close()
	close(c.done)
}

// blankLabels is a copy of the spec whose labels are empty: the child does not
// use them, and many long ones do not fit into a message.
func blankLabels(s *infer.Spec) *infer.Spec {
	b := *s
	b.Labels = make([]string, len(s.Labels))
	return &b
}
