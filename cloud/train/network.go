package train

import "math/rand/v2"

// Network is a chain of layers that ends in one logit per class. Reading it is
// safe for concurrent use.
type Network struct {
	In     Shape
	Layers []Layer
}

// NewNetwork builds the network of a spec with parameters drawn from its seed.
func NewNetwork(s Spec) (*Network, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	rng := rand.New(rand.NewPCG(s.Seed, streamInit))
	n := &Network{In: Shape{s.Height, s.Width, s.Channels}}
	if s.Network == NetworkLeNet {
		for _, f := range s.Filters {
			conv, err := NewConv2D(n.Out(), f, s.Kernel, 1, s.Same, rng)
			if err != nil {
				return nil, err
			}
			n.add(conv, NewReLU(conv.Out()))
			pool, err := NewMaxPool2D(n.Out(), 2)
			if err != nil {
				return nil, err
			}
			n.add(pool)
		}
	}
	n.add(NewFlatten(n.Out()))
	hidden := s.Hidden
	if s.Network == NetworkSoftmax {
		hidden = nil
	}
	for _, h := range hidden {
		d, err := NewDense(n.Out(), h, rng)
		if err != nil {
			return nil, err
		}
		n.add(d, NewReLU(d.Out()))
	}
	d, err := NewDense(n.Out(), s.Classes, rng)
	if err != nil {
		return nil, err
	}
	n.add(d)
	return n, nil
}

func (n *Network) add(l ...Layer) { n.Layers = append(n.Layers, l...) }

// Out is the shape behind the last layer.
func (n *Network) Out() Shape {
	if len(n.Layers) == 0 {
		return n.In
	}
	return n.Layers[len(n.Layers)-1].Out()
}

// Params are the parameters of all layers, first layer first.
func (n *Network) Params() []*Param {
	var all []*Param
	for _, l := range n.Layers {
		all = append(all, l.Params()...)
	}
	return all
}

// Size is the number of trainable values.
func (n *Network) Size() int {
	size := 0
	for _, p := range n.Params() {
		size += len(p.Value)
	}
	return size
}

// pass is the network's working memory for one shard.
type pass struct {
	layers []Pass
	grads  [][]float32 // parallel to Network.Params
}

func (n *Network) newPass(batch int) *pass {
	p := &pass{}
	leaf := true
	for _, l := range n.Layers {
		lp := l.NewPass(batch, leaf)
		leaf = leaf && len(l.Params()) == 0
		p.layers = append(p.layers, lp)
		p.grads = append(p.grads, lp.Grads()...)
	}
	return p
}

// forward runs n planar pictures; watch, if not nil, sees each layer's output.
func (p *pass) forward(x []float32, n int, watch func(layer int, y []float32)) []float32 {
	for i, l := range p.layers {
		x = l.Forward(x, n)
		if watch != nil {
			watch(i, x)
		}
	}
	return x
}

func (p *pass) backward(dy []float32, n int) {
	for i := len(p.layers) - 1; i >= 0 && dy != nil; i-- {
		dy = p.layers[i].Backward(dy, n)
	}
}
