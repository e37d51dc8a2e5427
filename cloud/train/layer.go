package train

import "math/rand/v2"

// Shape is the activation of one picture. In memory a batch of n is
// [n, channels, height, width]: the long rows of one channel suit im2col and
// the BLAS kernels. A vector has height and width 1.
type Shape struct{ Height, Width, Channels int }

// Size is the number of values.
func (s Shape) Size() int { return s.Height * s.Width * s.Channels }

// Param is one trainable array.
type Param struct {
	Name  string
	Value []float32
	Decay bool // weights decay, biases do not
}

// Layer is one step of a network with its parameters. Its methods are safe for
// concurrent use as long as nobody changes the parameters.
type Layer interface {
	// Out is the shape of the output for one picture.
	Out() Shape
	// Params are the trainable arrays; none for most layers.
	Params() []*Param
	// NewPass returns working memory for up to batch pictures. A leaf pass
	// need not compute the gradient of its input.
	NewPass(batch int, leaf bool) Pass
}

// Pass runs a layer over one shard. It belongs to one goroutine.
type Pass interface {
	// Forward takes n pictures and returns the output, which belongs to the
	// pass. It may overwrite x and keeps it until Backward.
	Forward(x []float32, n int) []float32
	// Backward takes the loss's gradient of the last output, adds the
	// parameters' gradients to Grads and returns the gradient of the input
	// (nil for a leaf). It may overwrite dy.
	Backward(dy []float32, n int) []float32
	// Grads are arrays parallel to the layer's Params.
	Grads() [][]float32
}

// noParams is embedded by layers without parameters and their passes.
type noParams struct{}

func (noParams) Params() []*Param   { return nil }
func (noParams) Grads() [][]float32 { return nil }

// heInit fills w with normal values of variance 2 ÷ fan-in, which keeps the
// variance of activations through ReLU (He et al. 2015).
func heInit(w []float32, fanIn int, rng *rand.Rand) {
	sigma := sqrt32(2 / float32(fanIn))
	for i := range w {
		w[i] = float32(rng.NormFloat64()) * sigma
	}
}

func zeroed(n int, v []float32) []float32 {
	v = v[:n]
	clear(v)
	return v
}
