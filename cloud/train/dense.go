package train

import (
	"fmt"
	"math/rand/v2"
)

// Dense is y = W·x + b over vectors.
type Dense struct {
	in, out      int
	weight, bias *Param // [out, in], [out]
}

// NewDense makes a dense layer from a vector to out values.
func NewDense(in Shape, out int, rng *rand.Rand) (*Dense, error) {
	if in.Height != 1 || in.Width != 1 || in.Channels < 1 || out < 1 {
		return nil, fmt.Errorf("%w: dense layer of %d values for an input of %d×%d×%d", ErrSpec, out, in.Height, in.Width, in.Channels)
	}
	l := &Dense{in: in.Channels, out: out,
		weight: &Param{Name: "weight", Value: make([]float32, in.Channels*out), Decay: true},
		bias:   &Param{Name: "bias", Value: make([]float32, out)}}
	heInit(l.weight.Value, l.in, rng)
	return l, nil
}

// Out implements Layer.
func (l *Dense) Out() Shape { return Shape{1, 1, l.out} }

// Params implements Layer.
func (l *Dense) Params() []*Param { return []*Param{l.weight, l.bias} }

// NewPass implements Layer.
func (l *Dense) NewPass(batch int, leaf bool) Pass {
	p := &densePass{l: l, y: make([]float32, batch*l.out), dw: make([]float32, len(l.weight.Value)), db: make([]float32, l.out)}
	if !leaf {
		p.dx = make([]float32, batch*l.in)
	}
	return p
}

type densePass struct {
	l        *Dense
	x, y, dx []float32
	dw, db   []float32
}

func (p *densePass) Forward(x []float32, n int) []float32 {
	p.x = x
	y := mat(p.y[:n*p.l.out], n, p.l.out)
	for i := range n {
		copy(y.v[i*p.l.out:], p.l.bias.Value)
	}
	matmul(false, true, mat(x, n, p.l.in), mat(p.l.weight.Value, p.l.out, p.l.in), y)
	return y.v
}

func (p *densePass) Backward(dy []float32, n int) []float32 {
	d, w := mat(dy, n, p.l.out), mat(p.l.weight.Value, p.l.out, p.l.in)
	for i := range n {
		for o, v := range dy[i*p.l.out : (i+1)*p.l.out] {
			p.db[o] += v
		}
	}
	matmul(true, false, d, mat(p.x, n, p.l.in), mat(p.dw, p.l.out, p.l.in))
	if p.dx == nil {
		return nil
	}
	dx := mat(zeroed(n*p.l.in, p.dx), n, p.l.in)
	matmul(false, false, d, w, dx)
	return dx.v
}

func (p *densePass) Grads() [][]float32 { return [][]float32{p.dw, p.db} }
