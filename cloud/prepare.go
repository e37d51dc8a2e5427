package cloud

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/cloud/dataset"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/infer/modelfile"
)

// Prepared is a labelled set as the model will see it: every picture went
// through the device's own preparation code. It implements train.Samples and is
// safe for concurrent use.
type Prepared struct {
	Classes []int
	values  []float32
	each    int
}

// Len implements train.Samples.
func (p *Prepared) Len() int { return len(p.Classes) }

// Class implements train.Samples.
func (p *Prepared) Class(i int) int { return p.Classes[i] }

// Pixels implements train.Samples.
func (p *Prepared) Pixels(i int, dst []float32) error {
	copy(dst, p.values[i*p.each:(i+1)*p.each])
	return nil
}

// maxPrepared bounds what is held in memory: 4 GiB.
const maxPrepared = 1 << 30 // values

// Prepare runs a set through children that do nothing but prepare. progress may
// be nil.
func Prepare(ctx context.Context, o host.Options, set *dataset.Set, height, width int, recipe infer.Preprocess, progress func(done, total int)) (*Prepared, error) {
	channels := 3
	if recipe.Color == infer.Gray {
		channels = 1
	}
	each := height * width * channels
	if set.Len() > maxPrepared/each {
		return nil, fmt.Errorf("cloud: prepare %s: %d pictures of %d values do not fit in memory; take fewer or a smaller input", set.Name, set.Len(), each)
	}
	model, spec, err := carrier(height, width, channels, recipe)
	if err != nil {
		return nil, err
	}
	const children = 2
	pool, err := host.NewPool(ctx, children, o, model, &spec, protocol.Runtime{Delegate: protocol.Builtin, Threads: 1})
	if err != nil {
		return nil, err
	}
	defer pool.Close()
	p := &Prepared{Classes: make([]int, set.Len()), values: make([]float32, set.Len()*each), each: each}
	var next, done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	for range children + 1 {
		g.Go(func() error {
			buf := make([]byte, 4*each)
			for {
				i := int(next.Add(1)) - 1
				if i >= set.Len() {
					return nil
				}
				if err := p.one(ctx, pool, set.Sample(i), i, buf); err != nil {
					return err
				}
				if n := done.Add(1); progress != nil && (n%256 == 0 || int(n) == set.Len()) {
					progress(int(n), set.Len())
				}
			}
		})
	}
	return p, g.Wait()
}

func (p *Prepared) one(ctx context.Context, pool *host.Pool, s dataset.Sample, i int, buf []byte) error {
	f, err := s.Load(ctx)
	if err != nil {
		return err
	}
	tensor, err := pool.Prepare(ctx, f, buf)
	if err != nil {
		return fmt.Errorf("cloud: prepare picture %s: %w", s.ID, err)
	}
	p.Classes[i] = s.Class
	out := p.values[i*p.each : (i+1)*p.each]
	for k := range out {
		out[k] = math.Float32frombits(binary.LittleEndian.Uint32(tensor[4*k:]))
	}
	return nil
}

// carrier is a model that is never run: it carries an input of the wanted
// shape, in float32, into a child, whose preparation code is what is wanted.
func carrier(height, width, channels int, recipe infer.Preprocess) ([]byte, infer.Spec, error) {
	b := modelfile.NewBuilder("drover preparation")
	in := b.Tensor(modelfile.TensorDef{Name: "input", Shape: []int{1, height, width, channels}, Type: modelfile.Float32})
	axes := b.Tensor(modelfile.TensorDef{Name: "axes", Shape: []int{2}, Type: modelfile.Int32, Data: []byte{1, 0, 0, 0, 2, 0, 0, 0}})
	out := b.Tensor(modelfile.TensorDef{Name: "mean", Shape: []int{1, channels}, Type: modelfile.Float32})
	b.Operator(modelfile.Mean, modelfile.ReducerOptions{}, []int{in, axes}, []int{out})
	b.IO([]int{in}, []int{out})
	model, err := b.Bytes()
	if err != nil {
		return nil, infer.Spec{}, fmt.Errorf("cloud: prepare: %w", err)
	}
	s := infer.Spec{
		Contract: infer.Contract{
			Input:  infer.TensorSpec{Shape: []int{1, height, width, channels}, DType: infer.Float32},
			Output: infer.TensorSpec{Shape: []int{1, channels}, DType: infer.Float32},
		},
		Labels: make([]string, channels), Preprocess: recipe, Postprocess: infer.DefaultPostprocess(),
	}
	s.Postprocess.TopK = 1
	return model, s, s.Check()
}
