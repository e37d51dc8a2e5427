package modelfile

import (
	"fmt"
	"math"

	"github.com/droverhq/drover/infer"
)

// Contract is what the model takes and gives. It fails, with an error that
// wraps infer.ErrContract, when the model is no classifier of pictures that
// drover can run.
func (m *Model) Contract() (infer.Contract, error) {
	if len(m.Inputs) != 1 || len(m.Outputs) != 1 {
		return infer.Contract{}, fmt.Errorf("%w: model has %d inputs and %d outputs, wanted one of each",
			infer.ErrContract, len(m.Inputs), len(m.Outputs))
	}
	in, err := m.spec("input", m.Inputs[0])
	if err != nil {
		return infer.Contract{}, err
	}
	out, err := m.spec("output", m.Outputs[0])
	if err != nil {
		return infer.Contract{}, err
	}
	c := infer.Contract{Input: in, Output: out}
	return c, c.Check()
}

func (m *Model) spec(side string, index int) (infer.TensorSpec, error) {
	t := m.Tensors[index]
	s := infer.TensorSpec{Name: t.Name, Shape: t.Shape, DType: t.Type.DType()}
	if s.DType == "" {
		return s, fmt.Errorf("%w: %s has element type %d; drover runs uint8, int8 and float32", infer.ErrContract, side, t.Type)
	}
	if t.Type == Float32 || len(t.Quant.Scales) == 0 {
		return s, nil // a float tensor's parameters are leftovers of training
	}
	s.Quant = infer.Quant{Scales: t.Quant.Scales, ZeroPoints: make([]int32, len(t.Quant.Scales))}
	if len(s.Quant.Scales) > 1 {
		s.Quant.Axis = t.Quant.Axis
	}
	for i, z := range t.Quant.ZeroPoints {
		if i >= len(s.Quant.ZeroPoints) || z < math.MinInt32 || z > math.MaxInt32 {
			return s, fmt.Errorf("%w: %s has %d scales and zero point %d = %d", infer.ErrContract, side, len(t.Quant.Scales), i, z)
		}
		s.Quant.ZeroPoints[i] = int32(z)
	}
	return s, nil
}
