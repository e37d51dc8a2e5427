package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/droverhq/drover/camera/ipc"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host/protocol"
)

// How long a child that should end may take, and one that was killed.
const (
	stopGrace = 2 * time.Second
	killGrace = 5 * time.Second
	sendLimit = 5 * time.Second
)

// Options says which child to start. The zero value of every field but Logger
// is usable.
type Options struct {
	Program      string        // path of drover-infer; empty: FindProgram
	Profile      cage.Profile  // empty: cage.Infer
	UID, GID     int           // see cage.Options
	MemoryBytes  int64         // see cage.Options
	ReadPaths    []string      // see cage.Options; e.g. an external delegate's library
	Devices      []string      // see cage.Options
	StartTimeout time.Duration // until Sealed; 0 means 10 s
	Logger       *slog.Logger  // nil: nothing is logged

	args, env []string // of the tests' hostile child
}

// Child is one running drover-infer. All methods are safe for concurrent use;
// requests are served one after the other.
type Child struct {
	logger *slog.Logger
	conn   *ipc.Conn
	stderr *stderrTail
	hello  protocol.Hello
	sealed protocol.Sealed

	onResult atomic.Pointer[func(*protocol.Result)]
	turn     chan struct{} // holds a token while no request is in flight
	scratch  *scratch      // whoever holds the turn
	lastID   uint64        // whoever holds the turn

	process *cage.Process
	done    chan struct{} // closed when the process is gone and the last message handled

	mu       sync.Mutex
	phase    phase
	contract infer.Contract  // from loaded on
	spec     bool            // whether the child knows how to prepare a picture
	waiting  *request        // the request in flight
	sources  map[uint32]bool // true: attached; false: detached, late results are ignored
	reason   *Death          // why we killed it, first cause only
	closing  bool
	err      error // set before done is closed

	// Used by the receiving goroutine alone.
	result    protocol.Result
	faultTime time.Time
}

type phase int

const (
	empty   phase = iota // no model yet
	loading              // Load sent
	loaded               // model ready
	refused              // nothing more to expect
)

// Start starts a child and returns when it is locked up, ready to be given a
// model. ctx bounds the start only. A child that does not come up is a *Death.
func Start(ctx context.Context, o Options) (*Child, error) {
	if o.Program == "" {
		path, err := FindProgram()
		if err != nil {
			return nil, err
		}
		o.Program = path
	}
	if o.Profile == "" {
		o.Profile = cage.Infer
	}
	if o.StartTimeout == 0 {
		o.StartTimeout = 10 * time.Second
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	conn, childEnd, err := ipc.Pair()
	if err != nil {
		return nil, fmt.Errorf("infer/host: start %s: %w", o.Program, err)
	}
	c := &Child{
		logger: o.Logger, conn: conn, stderr: &stderrTail{logger: o.Logger},
		turn: make(chan struct{}, 1), done: make(chan struct{}), sources: map[uint32]bool{},
	}
	// The child outlives ctx, so its command must not be bound to it.
	c.process, err = cage.Start(context.WithoutCancel(ctx), cage.Options{
		Profile: o.Profile, Program: o.Program, Args: append([]string{"-profile", string(o.Profile)}, o.args...), Env: o.env, UID: o.UID, GID: o.GID,
		MemoryBytes: o.MemoryBytes, ReadPaths: o.ReadPaths, Devices: o.Devices,
		Stderr: c.stderr, Files: []*os.File{childEnd},
	})
	childEnd.Close() // or the child's end would never be noticed
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("infer/host: start %s: %w", o.Program, err)
	}
	if err := c.greet(ctx, o.StartTimeout); err != nil {
		return nil, err
	}
	return c, nil
}

// greet receives Hello and Sealed, then leaves the conn to the receiving
// goroutine. When it fails the child is gone.
func (c *Child) greet(ctx context.Context, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	stop := context.AfterFunc(ctx, func() { c.conn.SetReadDeadline(time.Unix(1, 0)) })
	c.conn.SetReadDeadline(deadline)
	if ctx.Err() != nil {
		c.conn.SetReadDeadline(time.Unix(1, 0))
	}
	buf := make([]byte, ipc.MaxMessage)
	err := c.expect(buf, protocol.KindHello, &c.hello)
	if err == nil {
		err = c.expect(buf, protocol.KindSealed, &c.sealed)
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	c.conn.SetReadDeadline(time.Time{})
	switch {
	case err == nil:
		c.tidyGreeting()
		go c.receive(buf)
		c.turn <- struct{}{}
		return nil
	case ctx.Err() != nil:
		c.condemn(Killed, fmt.Errorf("start given up: %w", ctx.Err()))
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.condemn(Killed, fmt.Errorf("not ready after %v: %w", limit, context.DeadlineExceeded))
	case !isEOF(err):
		c.condemn(Protocol, err)
	}
	go c.receive(buf)
	return c.ended()
}

// expect receives one control message of the given kind.
func (c *Child) expect(buf []byte, kind byte, v any) error {
	m, err := c.conn.Recv(buf)
	if err != nil {
		return err
	}
	defer m.CloseFDs()
	if m.Kind != kind || len(m.FDs) > 0 {
		return fmt.Errorf("message %d with %d descriptors, expected %d", m.Kind, len(m.FDs), kind)
	}
	return protocol.Decode(m.Payload, v)
}

// tidyGreeting bounds the texts that will be shown to people.
func (c *Child) tidyGreeting() {
	for _, s := range []*string{&c.hello.Program, &c.hello.TFLite, &c.hello.OpenCV, &c.hello.CPU} {
		*s = clean(*s, 200)
	}
	const most = 32
	c.sealed.Gaps = c.sealed.Gaps[:min(most, len(c.sealed.Gaps))]
	for i, g := range c.sealed.Gaps {
		c.sealed.Gaps[i] = clean(g, 400)
	}
}

// Hello is what the child said of itself.
func (c *Child) Hello() protocol.Hello { return c.hello }

// Sealed is what the child said of its cage.
func (c *Child) Sealed() protocol.Sealed { return c.sealed }

// PID is the process id, of use for memory statistics while Done is open.
func (c *Child) PID() int { return c.process.PID() }

// Done is closed when the child is gone.
func (c *Child) Done() <-chan struct{} { return c.done }

// Err says why the child is gone: a *Death, or nil after an orderly Close.
// Before Done is closed it is nil.
func (c *Child) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// OnResult sets who receives the results of attached rings. It must be called
// before Attach. fn runs on the receiving goroutine and must not block; the
// result and its data are valid only during the call. The data of a result
// whose status is OK has the size of the contract's output; that of another is
// a message of at most 4 KiB that nobody has cleaned.
func (c *Child) OnResult(fn func(*protocol.Result)) { c.onResult.Store(&fn) }

// Close asks the child to stop, kills it after two seconds, and frees all that
// belongs to it. Requests in flight fail with ErrClosed. It returns an error
// only for a child that cannot be killed.
func (c *Child) Close() error {
	c.mu.Lock()
	c.closing = true
	c.mu.Unlock()
	c.conn.SetWriteDeadline(time.Now().Add(stopGrace / 4))
	if err := c.conn.Send(protocol.KindStop, nil); err != nil {
		c.process.Kill() // it has gone, or it does not listen
	}
	if !c.wait(stopGrace) {
		c.process.Kill()
		if !c.wait(killGrace) {
			return fmt.Errorf("infer/host: %s (pid %d) cannot be killed; it hangs in the kernel", ProgramName, c.PID())
		}
	}
	c.turn <- <-c.turn // no request uses the scratch memory now, nor will
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.scratch != nil {
		c.scratch.close()
		c.scratch = nil
	}
	return nil
}

// Kill ends a child that the caller has judged, for instance because it gives
// no results although frames come. Err then is a Death of kind Killed with this
// reason. It does not wait: Close frees what belongs to the child.
func (c *Child) Kill(reason error) { c.condemn(Killed, reason) }

// wait says whether the child was gone within d.
func (c *Child) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-c.done:
		return true
	case <-t.C:
		return false
	}
}

// condemn kills the child. The first reason is the one that counts.
func (c *Child) condemn(kind DeathKind, reason error) {
	c.mu.Lock()
	if c.reason == nil {
		c.reason = &Death{Kind: kind, Reason: reason, PID: c.process.PID()}
	}
	c.mu.Unlock()
	c.process.Kill()
}

// ended waits for the end of a child that is dying and says why it did. One
// that hangs in the kernel is reported before its end.
func (c *Child) ended() error {
	gone := c.wait(killGrace)
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.err != nil:
		return c.err
	case gone || c.closing:
		return ErrClosed
	case c.reason != nil:
		return c.reason
	}
	return fmt.Errorf("infer/host: %s (pid %d) closed its socket and cannot be killed", ProgramName, c.process.PID())
}
