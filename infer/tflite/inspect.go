//go:build cgo

package tflite

import "fmt"

// minModel is the least a .tflite can be: root offset, identifier, one table.
const minModel = 16

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

// inspect refuses what is no .tflite before the C library, which verifies
// nothing, reads a byte of it.
func inspect(model []byte) (operands, error) {
	if len(model) < minModel {
		return operands{}, &Refusal{Kind: KindModel, Reason: fmt.Sprintf("not a .tflite: %d bytes", len(model))}
	}
	if string(model[4:8]) != "TFL3" {
		return operands{}, &Refusal{Kind: KindModel, Reason: fmt.Sprintf("not a .tflite: identifier %q where \"TFL3\" should be", model[4:8])}
	}
	return operands{int8: true, uint8: true, float32: true}, nil
}
