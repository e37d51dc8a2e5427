package train

import "math"

// ReLU is max(x, 0), in place.
type ReLU struct {
	noParams
	shape Shape
}

// NewReLU makes a ReLU of the shape.
func NewReLU(in Shape) *ReLU { return &ReLU{shape: in} }

// Out implements Layer.
func (l *ReLU) Out() Shape { return l.shape }

// NewPass implements Layer.
func (l *ReLU) NewPass(int, bool) Pass { return &reluPass{} }

type reluPass struct {
	noParams
	y []float32
}

func (p *reluPass) Forward(x []float32, _ int) []float32 {
	for i, v := range x {
		x[i] = max(v, 0)
	}
	p.y = x
	return x
}

func (p *reluPass) Backward(dy []float32, _ int) []float32 {
	// y is 0 or positive; its bits make the mask without a branch to guess.
	for i, v := range p.y[:len(dy)] {
		mask := -int32(math.Float32bits(v)) >> 31
		dy[i] = math.Float32frombits(math.Float32bits(dy[i]) & uint32(mask))
	}
	return dy
}
