package train

import (
	"fmt"
	"math/rand/v2"
)

// Conv2D is a convolution with square kernel over [C,H,W], as a matrix product
// over unrolled windows (im2col).
type Conv2D struct {
	in, out      Shape
	kernel       int
	stride       int
	same         bool
	padTop       int
	padLeft      int
	weight, bias *Param // [out, channels × kernel × kernel], [out]
}

// NewConv2D makes a convolution to filters channels. With same, the output has
// ⌈input ÷ stride⌉ rows and columns and zeros stand around the input, the odd
// one at bottom and right, as in TFLite; else only whole windows count.
func NewConv2D(in Shape, filters, kernel, stride int, same bool, rng *rand.Rand) (*Conv2D, error) {
	l := &Conv2D{in: in, kernel: kernel, stride: stride, same: same}
	l.out.Channels = filters
	if same {
		l.out.Height, l.padTop = samePadding(in.Height, kernel, stride)
		l.out.Width, l.padLeft = samePadding(in.Width, kernel, stride)
	} else {
		l.out.Height, l.out.Width = (in.Height-kernel)/stride+1, (in.Width-kernel)/stride+1
	}
	if in.Height < kernel && !same || in.Width < kernel && !same || filters < 1 || kernel < 1 || stride < 1 {
		return nil, fmt.Errorf("%w: convolution %d×%d to %d channels does not fit an input of %d×%d×%d",
			ErrSpec, kernel, kernel, filters, in.Height, in.Width, in.Channels)
	}
	k := in.Channels * kernel * kernel
	l.weight = &Param{Name: "weight", Value: make([]float32, filters*k), Decay: true}
	l.bias = &Param{Name: "bias", Value: make([]float32, filters)}
	heInit(l.weight.Value, k, rng)
	return l, nil
}

func samePadding(in, kernel, stride int) (out, before int) {
	out = (in + stride - 1) / stride
	return out, max((out-1)*stride+kernel-in, 0) / 2
}

// Out implements Layer.
func (l *Conv2D) Out() Shape { return l.out }

// Params implements Layer.
func (l *Conv2D) Params() []*Param { return []*Param{l.weight, l.bias} }

// NewPass implements Layer.
func (l *Conv2D) NewPass(batch int, leaf bool) Pass {
	k, area := l.window(), l.out.Height*l.out.Width
	p := &convPass{l: l, cols: make([]float32, batch*k*area), y: make([]float32, batch*l.out.Size()),
		dw: make([]float32, len(l.weight.Value)), db: make([]float32, len(l.bias.Value))}
	if !leaf {
		p.dcol = make([]float32, k*area)
		p.dx = make([]float32, batch*l.in.Size())
	}
	return p
}

func (l *Conv2D) window() int { return l.in.Channels * l.kernel * l.kernel }

type convPass struct {
	l        *Conv2D
	cols     []float32 // unrolled input of each picture, kept for Backward
	y        []float32
	dcol, dx []float32
	dw, db   []float32
}

func (p *convPass) Forward(x []float32, n int) []float32 {
	l := p.l
	k, area, in, out := l.window(), l.out.Height*l.out.Width, l.in.Size(), l.out.Size()
	for i := range n {
		col := p.cols[i*k*area : (i+1)*k*area]
		l.unroll(x[i*in:(i+1)*in], col)
		y := p.y[i*out : (i+1)*out]
		for o, b := range l.bias.Value {
			row := y[o*area : (o+1)*area]
			for j := range row {
				row[j] = b
			}
		}
		matmul(false, false, mat(l.weight.Value, l.out.Channels, k), mat(col, k, area), mat(y, l.out.Channels, area))
	}
	return p.y[:n*out]
}

func (p *convPass) Backward(dy []float32, n int) []float32 {
	l := p.l
	k, area, in, out := l.window(), l.out.Height*l.out.Width, l.in.Size(), l.out.Size()
	for i := range n {
		d := mat(dy[i*out:(i+1)*out], l.out.Channels, area)
		for o := range p.db {
			p.db[o] += sum(d.v[o*area : (o+1)*area])
		}
		matmul(false, true, d, mat(p.cols[i*k*area:(i+1)*k*area], k, area), mat(p.dw, l.out.Channels, k))
		if p.dx == nil {
			continue
		}
		clear(p.dcol)
		matmul(true, false, mat(l.weight.Value, l.out.Channels, k), d, mat(p.dcol, k, area))
		l.roll(p.dcol, zeroed(in, p.dx[i*in:]))
	}
	if p.dx == nil {
		return nil
	}
	return p.dx[:n*in]
}

func (p *convPass) Grads() [][]float32 { return [][]float32{p.dw, p.db} }

// sum adds in four chains, which do not wait for each other.
func sum(v []float32) float32 {
	var a, b, c, d float32
	for len(v) >= 4 {
		a, b, c, d = a+v[0], b+v[1], c+v[2], d+v[3]
		v = v[4:]
	}
	for _, x := range v {
		a += x
	}
	return (a + b) + (c + d)
}

// span is the range of output columns whose window element kx lies inside the
// input row.
func (l *Conv2D) span(kx int) (from, to int) {
	from = max(0, (l.padLeft-kx+l.stride-1)/l.stride)
	to = min(l.out.Width, (l.in.Width-1+l.padLeft-kx)/l.stride+1)
	if l.in.Width-1+l.padLeft-kx < 0 {
		to = 0
	}
	return from, max(from, to)
}

// unroll writes, for each element of the window, one row with its value at
// every output position.
func (l *Conv2D) unroll(x, col []float32) {
	row := 0
	area := l.out.Height * l.out.Width
	for c := range l.in.Channels {
		plane := x[c*l.in.Height*l.in.Width:]
		for ky := range l.kernel {
			for kx := range l.kernel {
				dst := col[row*area : (row+1)*area]
				row++
				from, to := l.span(kx)
				for oy := range l.out.Height {
					line := dst[oy*l.out.Width : (oy+1)*l.out.Width]
					iy := oy*l.stride + ky - l.padTop
					if iy < 0 || iy >= l.in.Height {
						clear(line)
						continue
					}
					clear(line[:from])
					clear(line[to:])
					at := iy*l.in.Width + from*l.stride + kx - l.padLeft
					if l.stride == 1 {
						copy(line[from:to], plane[at:])
						continue
					}
					for ox := from; ox < to; ox++ {
						line[ox] = plane[at]
						at += l.stride
					}
				}
			}
		}
	}
}

// roll adds what unroll spread back onto the input's positions.
func (l *Conv2D) roll(col, dx []float32) {
	row := 0
	area := l.out.Height * l.out.Width
	for c := range l.in.Channels {
		plane := dx[c*l.in.Height*l.in.Width:]
		for ky := range l.kernel {
			for kx := range l.kernel {
				src := col[row*area : (row+1)*area]
				row++
				from, to := l.span(kx)
				for oy := range l.out.Height {
					iy := oy*l.stride + ky - l.padTop
					if iy < 0 || iy >= l.in.Height {
						continue
					}
					at := iy*l.in.Width + from*l.stride + kx - l.padLeft
					for _, v := range src[oy*l.out.Width+from : oy*l.out.Width+to] {
						plane[at] += v
						at += l.stride
					}
				}
			}
		}
	}
}
