package host

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host/protocol"
)

// Pool is several children with the same model, for evaluation and training,
// where pictures come from many goroutines. A request that kills its child
// fails; a later one finds a new child in its place.
type Pool struct {
	options Options
	model   []byte
	spec    *infer.Spec
	runtime protocol.Runtime
	loaded  protocol.Loaded

	seats  chan *Child // nil: a seat whose child must be started
	closed chan struct{}
	once   sync.Once
}

// NewPool starts n children and loads the model into each; spec nil is as in
// Child.Load. ctx bounds the start only.
func NewPool(ctx context.Context, n int, o Options, model []byte, spec *infer.Spec, rt protocol.Runtime) (*Pool, error) {
	if n < 1 {
		return nil, fmt.Errorf("%w: a pool of %d children", ErrState, n)
	}
	p := &Pool{options: o, model: model, spec: spec, runtime: rt, seats: make(chan *Child, n), closed: make(chan struct{})}
	first, loaded, err := p.start(ctx)
	if err != nil {
		return nil, err
	}
	p.loaded = loaded
	p.seats <- first
	var wg sync.WaitGroup
	errs := make([]error, n-1)
	for i := range errs {
		wg.Go(func() {
			c, _, err := p.start(ctx)
			errs[i] = err
			p.seats <- c
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Pool) start(ctx context.Context) (*Child, protocol.Loaded, error) {
	c, err := Start(ctx, p.options)
	if err != nil {
		return nil, protocol.Loaded{}, err
	}
	loaded, err := c.Load(ctx, p.model, p.spec, p.runtime)
	if err != nil {
		return nil, loaded, errors.Join(err, c.Close())
	}
	return c, loaded, nil
}

// Loaded is what the first child said of the model.
func (p *Pool) Loaded() protocol.Loaded { return p.loaded }

// Size is the number of children.
func (p *Pool) Size() int { return cap(p.seats) }

// Classify is Child.Classify on a child that is free. It waits for one until
// ctx ends.
func (p *Pool) Classify(ctx context.Context, f *camera.Frame, out []byte) (a Answer, err error) {
	err = p.with(ctx, func(c *Child) error {
		a, err = c.Classify(ctx, f, out)
		return err
	})
	return a, err
}

// Prepare is Child.Prepare on a child that is free.
func (p *Pool) Prepare(ctx context.Context, f *camera.Frame, out []byte) (tensor []byte, err error) {
	err = p.with(ctx, func(c *Child) error {
		tensor, err = c.Prepare(ctx, f, out)
		return err
	})
	return tensor, err
}

// Invoke is Child.Invoke on a child that is free.
func (p *Pool) Invoke(ctx context.Context, tensor, out []byte) (a Answer, err error) {
	err = p.with(ctx, func(c *Child) error {
		a, err = c.Invoke(ctx, tensor, out)
		return err
	})
	return a, err
}

func (p *Pool) with(ctx context.Context, fn func(*Child) error) error {
	var c *Child
	select {
	case <-p.closed:
		return ErrClosed
	default:
	}
	select {
	case c = <-p.seats:
	case <-p.closed:
		return ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("infer/host: waiting for a child: %w", ctx.Err())
	}
	defer func() { p.seats <- c }()
	if c == nil {
		fresh, _, err := p.start(ctx)
		if err != nil {
			return fmt.Errorf("infer/host: replace a dead child: %w", err)
		}
		c = fresh
	}
	err := fn(c)
	select {
	case <-c.Done():
		err = errors.Join(err, c.Close())
		c = nil
	default:
	}
	return err
}

// Close waits for requests in flight and closes all children. Requests that
// wait fail with ErrClosed.
func (p *Pool) Close() error {
	var errs []error
	p.once.Do(func() {
		close(p.closed)
		for range cap(p.seats) {
			if c := <-p.seats; c != nil {
				errs = append(errs, c.Close())
			}
		}
	})
	return errors.Join(errs...)
}
