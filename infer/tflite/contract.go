//go:build cgo

package tflite

/*
#include "runtime.h"
*/
import "C"

import (
	"fmt"
	"unsafe"

	tf "github.com/tphakala/go-tflite"

	"github.com/droverhq/drover/infer"
)

// readContract fills contract, input and output from the allocated graph.
func (it *Interpreter) readContract() error {
	ins, outs := it.interp.GetInputTensorCount(), it.interp.GetOutputTensorCount()
	if ins != 1 || outs != 1 {
		return &Refusal{Kind: KindContract, Reason: fmt.Sprintf("the model has %d inputs and %d outputs; drover runs classifiers with one of each", ins, outs)}
	}
	var err error
	if it.contract.Input, it.input, err = readTensor("input", it.interp.GetInputTensor(0)); err != nil {
		return err
	}
	it.contract.Output, it.output, err = readTensor("output", it.interp.GetOutputTensor(0))
	return err
}

func readTensor(side string, t *tf.Tensor) (infer.TensorSpec, []byte, error) {
	refuse := func(format string, args ...any) error {
		return &Refusal{Kind: KindContract, Reason: side + " tensor " + fmt.Sprintf(format, args...)}
	}
	spec := infer.TensorSpec{Name: t.Name(), Shape: t.Shape()}
	switch t.Type() {
	case tf.UInt8:
		spec.DType = infer.Uint8
	case tf.Int8:
		spec.DType = infer.Int8
	case tf.Float32:
		spec.DType = infer.Float32
	default:
		return spec, nil, refuse("has element type %v; drover runs uint8, int8 and float32", t.Type())
	}
	n := spec.Bytes()
	if n == 0 || n > infer.MaxTensorBytes {
		return spec, nil, refuse("of shape %v is empty or too large", spec.Shape)
	}
	if uint(n) != t.ByteSize() || t.Data() == nil {
		return spec, nil, refuse("of shape %v has %d bytes of memory, not %d", spec.Shape, t.ByteSize(), n)
	}
	if spec.DType == infer.Float32 {
		return spec, unsafe.Slice((*byte)(t.Data()), n), nil // parameters of a float tensor are leftovers of training
	}
	spec.Quant = readQuant((*C.TfLiteTensor)(pointer(t)))
	return spec, unsafe.Slice((*byte)(t.Data()), n), nil
}

func readQuant(t *C.TfLiteTensor) infer.Quant {
	var scales *C.float
	var zeros *C.int32_t
	var axis C.int32_t
	n := int(C.drover_quant(t, &scales, &zeros, &axis))
	if n == 0 {
		return infer.Quant{}
	}
	q := infer.Quant{Axis: int(axis), Scales: make([]float32, n), ZeroPoints: make([]int32, n)}
	for i, s := range unsafe.Slice(scales, n) {
		q.Scales[i] = float32(s)
	}
	for i, z := range unsafe.Slice(zeros, n) {
		q.ZeroPoints[i] = int32(z)
	}
	return q
}
