package train

import "fmt"

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
	w, at := l.in.Width, 0
	for plane := range n * l.in.Channels {
		base := plane * l.in.Height * w
		for oy := range l.out.Height {
			for ox := range l.out.Width {
				best := base + oy*l.size*w + ox*l.size
				v := x[best]
				start := best
				for dy := range l.size {
					for i, c := range x[start+dy*w : start+dy*w+l.size] {
						if c > v {
							v, best = c, start+dy*w+i
						}
					}
				}
				p.y[at], p.from[at] = v, int32(best)
				at++
			}
		}
	}
	return p.y[:at]
}

func (p *poolPass) Backward(dy []float32, n int) []float32 {
	dx := zeroed(n*p.l.in.Size(), p.dx)
	for i, d := range dy {
		dx[p.from[i]] += d
	}
	return dx
}
