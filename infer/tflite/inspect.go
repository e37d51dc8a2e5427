//go:build cgo

package tflite

import "github.com/droverhq/drover/infer/modelfile"

// operands says what element types stand in a model, which decides what
// XNNPACK is asked to take.
type operands struct{ int8, uint8, float32 bool }

func (o operands) any() bool { return o.int8 || o.uint8 || o.float32 }

// flags asks for the signed operators, and for the unsigned ones only where
// there are no signed ones: XNNPACK either takes such a graph or says why not,
// whereas with the unsigned flag alone it may take nothing and say nothing.
func (o operands) flags() uint32 {
	switch {
	case o.int8:
		return flagQS8
	case o.uint8:
		return flagQS8 | flagQU8
	}
	return 0
}

// inspect refuses what is no well-formed .tflite before the C library, which
// verifies nothing, reads a byte of it.
func inspect(model []byte) (operands, error) {
	m, err := modelfile.Parse(model)
	if err != nil {
		return operands{}, &Refusal{Kind: KindModel, Reason: err.Error()}
	}
	var o operands
	for _, t := range m.Tensors {
		switch t.Type {
		case modelfile.Int8:
			o.int8 = true
		case modelfile.Uint8:
			o.uint8 = true
		case modelfile.Float32:
			o.float32 = true
		}
	}
	return o, nil
}
