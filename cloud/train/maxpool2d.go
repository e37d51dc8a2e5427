package train

import (
	"fmt"
	"math"
)

// MaxPool2D takes the largest value of each whole size × size window; windows
// do not overlap.
type MaxPool2D struct {
	noParams
	in, out Shape
	size    int
}

// NewMaxPool2D makes a pooling layer.
func NewMaxPool2D(in Shape, size int) (*MaxPool2D, error) {
	if size < 1 || in.Height < size || in.Width < size {
		return nil, fmt.Errorf("%w: pooling %d×%d does not fit an input of %d×%d", ErrSpec, size, size, in.Height, in.Width)
	}
	return &MaxPool2D{in: in, out: Shape{in.Height / size, in.Width / size, in.Channels}, size: size}, nil
}

// Out implements Layer.
func (l *MaxPool2D) Out() Shape { return l.out }

// NewPass implements Layer.
func (l *MaxPool2D) NewPass(batch int, _ bool) Pass {
	return &poolPass{l: l, y: make([]float32, batch*l.out.Size()), from: make([]int32, batch*l.out.Size()),
		dx: make([]float32, batch*l.in.Size())}
}

type poolPass struct {
	noParams
	l     *MaxPool2D
	y, dx []float32
	from  []int32 // where in x each output came from
}

func (p *poolPass) Forward(x []float32, n int) []float32 {
	l := p.l
	at := 0
	for plane := range n * l.in.Channels {
		for oy := range l.out.Height {
			top := (plane*l.in.Height + oy*l.size) * l.in.Width
			from := p.from[at : at+l.out.Width]
			if l.size == 2 {
				best2x2(x, top, l.in.Width, from)
			} else {
				l.best(x, top, from)
			}
			for i, f := range from {
				p.y[at+i] = x[f]
			}
			at += l.out.Width
		}
	}
	return p.y[:at]
}

// best finds the largest value of each window of a row that begins at top.
func (l *MaxPool2D) best(x []float32, top int, from []int32) {
	for ox := range from {
		start := top + ox*l.size
		best := start
		for dy := range l.size {
			for i := range l.size {
				if at := start + dy*l.in.Width + i; x[at] > x[best] {
					best = at
				}
			}
		}
		from[ox] = int32(best)
	}
}

// best2x2 is best for the usual size without branches, which no predictor
// could guess: value and place are packed into one integer.
func best2x2(x []float32, top, w int, from []int32) {
	a, b := x[top:top+2*len(from)], x[top+w:top+w+2*len(from)]
	for ox := range from {
		i := 2 * ox
		k := max(rank(a[i])|3, rank(a[i+1])|2, rank(b[i])|1, rank(b[i+1]))
		place := 3 - int(k&3)
		from[ox] = int32(top + i + place&1 + place>>1*w)
	}
}

// rank orders finite floats as integers and leaves the two lowest bits free.
func rank(v float32) int64 {
	b := int32(math.Float32bits(v))
	return int64(b^(b>>31&math.MaxInt32)) << 2
}

func (p *poolPass) Backward(dy []float32, n int) []float32 {
	dx := zeroed(n*p.l.in.Size(), p.dx)
	for i, d := range dy {
		dx[p.from[i]] += d
	}
	return dx
}
