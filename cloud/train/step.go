package train

import (
	"context"
	"runtime"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// shards is how many parts a batch is cut into. It is fixed, since the order of
// additions, and so every rounding, depends on it.
const shards = 8

// shard is a part of a batch with its working memory.
type shard struct {
	pass    *pass
	x       []float32
	raw     []float32 // one picture as Samples give it
	classes []int
	loss    float64
	hits    int
}

// engine runs batches of a network over samples on all cores.
type engine struct {
	net     *Network
	samples Samples
	shards  [shards]shard
}

func newEngine(net *Network, samples Samples, batch int) *engine {
	e := &engine{net: net, samples: samples}
	size := net.In.Size()
	for i := range e.shards {
		n := (batch + shards - 1) / shards
		e.shards[i] = shard{pass: net.newPass(n), x: make([]float32, n*size), raw: make([]float32, size), classes: make([]int, n)}
	}
	return e
}

// each calls f for every shard of the pictures, on as many goroutines as there
// are processors.
func (e *engine) each(ctx context.Context, pictures []int, f func(s *shard, part []int) error) error {
	var next atomic.Int32
	group, ctx := errgroup.WithContext(ctx)
	for range min(runtime.GOMAXPROCS(0), shards) {
		group.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= shards || ctx.Err() != nil {
					return ctx.Err()
				}
				s := &e.shards[i]
				s.loss, s.hits = 0, 0
				part := pictures[len(pictures)*i/shards : len(pictures)*(i+1)/shards]
				if len(part) == 0 {
					continue
				}
				if err := f(s, part); err != nil {
					return err
				}
			}
		})
	}
	return group.Wait()
}

// load brings the pictures into the shard.
func (e *engine) load(s *shard, part []int, vary func(x, scratch []float32, picture int)) error {
	size := e.net.In.Size()
	for j, picture := range part {
		if err := e.samples.Pixels(picture, s.raw); err != nil {
			return dataError(picture, err)
		}
		x := s.x[j*size : (j+1)*size]
		toPlanar(s.raw, x, e.net.In)
		if vary != nil {
			vary(x, s.raw, picture)
		}
		s.classes[j] = e.samples.Class(picture)
	}
	return nil
}

// gradients runs one batch forwards and backwards and leaves the gradient of
// the mean loss in grads.
func (e *engine) gradients(ctx context.Context, pictures []int, vary func(x, scratch []float32, picture int), grads [][]float32) (loss float64, hits int, err error) {
	err = e.each(ctx, pictures, func(s *shard, part []int) error {
		if err := e.load(s, part, vary); err != nil {
			return err
		}
		for _, g := range s.pass.grads {
			clear(g)
		}
		n := len(part)
		logits := s.pass.forward(s.x, n, nil)
		s.loss, s.hits = softmaxCrossEntropy(logits, s.classes[:n], len(pictures))
		s.pass.backward(logits, n)
		return nil
	})
	if err != nil {
		return 0, 0, err
	}
	for i := range e.shards {
		s := &e.shards[i]
		loss += s.loss
		hits += s.hits
		if len(pictures)*i/shards == len(pictures)*(i+1)/shards {
			continue // an empty shard still holds an older batch
		}
		for k, g := range s.pass.grads {
			add(grads[k], g)
		}
	}
	return loss / float64(len(pictures)), hits, nil
}

func add(dst, v []float32) {
	for i, x := range v {
		dst[i] += x
	}
}
