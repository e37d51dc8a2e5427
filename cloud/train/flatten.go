package train

// Flatten turns [C,H,W] into a vector in the order height, width, channel,
// which is how a .tflite model's next dense layer sees the same picture.
type Flatten struct {
	noParams
	in Shape
}

// NewFlatten makes a flattening layer.
func NewFlatten(in Shape) *Flatten { return &Flatten{in: in} }

// Out implements Layer.
func (l *Flatten) Out() Shape { return Shape{1, 1, l.in.Size()} }

// NewPass implements Layer.
func (l *Flatten) NewPass(batch int, leaf bool) Pass {
	p := &flattenPass{l: l, y: make([]float32, batch*l.in.Size())}
	if !leaf {
		p.dx = make([]float32, batch*l.in.Size())
	}
	return p
}

type flattenPass struct {
	noParams
	l     *Flatten
	y, dx []float32
}

func (p *flattenPass) Forward(x []float32, n int) []float32 {
	size, area, ch := p.l.in.Size(), p.l.in.Height*p.l.in.Width, p.l.in.Channels
	for i := range n {
		src, dst := x[i*size:(i+1)*size], p.y[i*size:(i+1)*size]
		for c := range ch {
			for j, v := range src[c*area : (c+1)*area] {
				dst[j*ch+c] = v
			}
		}
	}
	return p.y[:n*size]
}

func (p *flattenPass) Backward(dy []float32, n int) []float32 {
	if p.dx == nil {
		return nil
	}
	size, area, ch := p.l.in.Size(), p.l.in.Height*p.l.in.Width, p.l.in.Channels
	for i := range n {
		src, dst := dy[i*size:(i+1)*size], p.dx[i*size:(i+1)*size]
		for c := range ch {
			line := dst[c*area : (c+1)*area]
			for j := range line {
				line[j] = src[j*ch+c]
			}
		}
	}
	return p.dx[:n*size]
}
