package train

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
)

// lowering builds the int8 graph layer by layer; it stands behind the tensor
// that the last one gave.
type lowering struct {
	b     *modelfile.Builder
	at    int // current tensor
	shape Shape
	quant infer.Quant
}

// lowerable is a layer that can be written as int8 operators. out is the range
// of its output, after act, which is fused into it.
type lowerable interface {
	lower(g *lowering, name string, act modelfile.Activation, out valueRange) error
}

// lower writes the network between its int8 input and its logits.
func (n *Network) lower(g *lowering, c *calibration) error {
	for i := 0; i < len(n.Layers); i++ {
		l, ok := n.Layers[i].(lowerable)
		if !ok {
			return fmt.Errorf("%w: layer %d (%T) has no int8 form", ErrExport, i, n.Layers[i])
		}
		act, name := modelfile.NoActivation, fmt.Sprintf("layer%d", i)
		if i+1 < len(n.Layers) {
			if _, relu := n.Layers[i+1].(*ReLU); relu {
				act = modelfile.FusedReLU
				i++
			}
		}
		if err := l.lower(g, name, act, c.ranges[i]); err != nil {
			return err
		}
	}
	return nil
}

// output adds a tensor for a result and moves on to it.
func (g *lowering) output(name string, s Shape, q infer.Quant) (from, to int) {
	shape := []int{1, s.Height, s.Width, s.Channels}
	if s.Height == 1 && s.Width == 1 {
		shape = []int{1, s.Channels}
	}
	from = g.at
	g.at = g.b.Tensor(modelfile.TensorDef{Name: name, Shape: shape, Type: modelfile.Int8, Quant: q})
	g.shape, g.quant = s, q
	return from, g.at
}

// weights adds int8 weights [rows, …] with one symmetric scale per row, or one
// for all, and their int32 bias of scale input × weight. v is in row order.
func (g *lowering) weights(name string, shape []int, v, bias []float32, perRow bool) (w, b int) {
	rows, in := shape[0], g.quant.Scales[0]
	per := len(v) / rows
	scales := make([]float32, rows)
	for r := range scales {
		top := float32(0)
		for _, x := range v[r*per : (r+1)*per] {
			top = max(top, x, -x)
		}
		// The bias must fit its int32 also where all weights are nearly 0.
		scales[r] = max(top/127, float32(math.Abs(float64(bias[r])))/in/(1<<30), 1e-12)
	}
	if !perRow {
		top := scales[0]
		for _, s := range scales {
			top = max(top, s)
		}
		for r := range scales {
			scales[r] = top
		}
	}
	data := make([]byte, len(v))
	for i, x := range v {
		data[i] = byte(int8(clampRound(float64(x)/float64(scales[i/per]), 127)))
	}
	biasData := make([]byte, 4*rows)
	biasScales := make([]float32, rows)
	for r, x := range bias {
		biasScales[r] = in * scales[r]
		q := clampRound(float64(x)/(float64(in)*float64(scales[r])), math.MaxInt32)
		binary.LittleEndian.PutUint32(biasData[4*r:], uint32(int32(q)))
	}
	n := rows
	if !perRow {
		n = 1
	}
	zeros := make([]int32, n)
	w = g.b.Tensor(modelfile.TensorDef{Name: name + "/weight", Shape: shape, Type: modelfile.Int8,
		Quant: infer.Quant{Scales: scales[:n], ZeroPoints: zeros}, Data: data})
	b = g.b.Tensor(modelfile.TensorDef{Name: name + "/bias", Shape: []int{rows}, Type: modelfile.Int32,
		Quant: infer.Quant{Scales: biasScales[:n], ZeroPoints: zeros}, Data: biasData})
	return w, b
}

func clampRound(x, limit float64) float64 { return math.Round(max(-limit, min(limit, x))) }

func (l *Conv2D) lower(g *lowering, name string, act modelfile.Activation, out valueRange) error {
	// [out, channel, row, column] → [out, row, column, channel]
	k, ch := l.kernel*l.kernel, l.in.Channels
	v := make([]float32, len(l.weight.Value))
	for o := range l.out.Channels {
		for c := range ch {
			for j := range k {
				v[(o*k+j)*ch+c] = l.weight.Value[(o*ch+c)*k+j]
			}
		}
	}
	w, b := g.weights(name, []int{l.out.Channels, l.kernel, l.kernel, ch}, v, l.bias.Value, true)
	from, to := g.output(name, l.out, out.quantize())
	padding := modelfile.Valid
	if l.same {
		padding = modelfile.Same
	}
	g.b.Operator(modelfile.Conv2D, modelfile.Conv2DOptions{Padding: padding, StrideH: l.stride, StrideW: l.stride, Activation: act},
		[]int{from, w, b}, []int{to})
	return nil
}

// One scale for all rows: the kernels of TFLite 2.9 know no other for this
// operator.
func (l *Dense) lower(g *lowering, name string, act modelfile.Activation, out valueRange) error {
	w, b := g.weights(name, []int{l.out, l.in}, l.weight.Value, l.bias.Value, false)
	from, to := g.output(name, l.Out(), out.quantize())
	g.b.Operator(modelfile.FullyConnected, modelfile.FullyConnectedOptions{Activation: act}, []int{from, w, b}, []int{to})
	return nil
}

// Pooling keeps the quantization of its input: the kernel compares integers.
func (l *MaxPool2D) lower(g *lowering, name string, act modelfile.Activation, _ valueRange) error {
	from, to := g.output(name, l.out, g.quant)
	g.b.Operator(modelfile.MaxPool2D, modelfile.Pool2DOptions{Padding: modelfile.Valid,
		StrideH: l.size, StrideW: l.size, FilterH: l.size, FilterW: l.size, Activation: act}, []int{from}, []int{to})
	return nil
}

// The fully connected operator flattens by itself.
func (l *Flatten) lower(g *lowering, name string, act modelfile.Activation, _ valueRange) error {
	if act != modelfile.NoActivation {
		return fmt.Errorf("%w: %s flattens before a ReLU", ErrExport, name)
	}
	g.shape = l.Out()
	return nil
}
