package modelfile

import flatbuffers "github.com/google/flatbuffers/go"

// Activation is a function fused into an operator.
type Activation byte

// The activations.
const (
	NoActivation Activation = 0
	FusedReLU    Activation = 1
	FusedReLU6   Activation = 3
)

// Padding says how a window treats the border.
type Padding byte

// The paddings.
const (
	Same  Padding = 0 // output = ⌈input ÷ stride⌉, zeros around
	Valid Padding = 1 // only whole windows
)

// Options are the parameters of one builtin operator.
type Options interface {
	// write appends the options table and returns its number in the union.
	write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT)
}

// Conv2DOptions belong to Conv2D: input [1,H,W,C], weights [O,h,w,C], bias [O].
type Conv2DOptions struct {
	Padding          Padding
	StrideH, StrideW int
	Activation       Activation
}

func (o Conv2DOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(6)
	b.PrependByteSlot(0, byte(o.Padding), 0)
	b.PrependInt32Slot(1, int32(o.StrideW), 0)
	b.PrependInt32Slot(2, int32(o.StrideH), 0)
	b.PrependByteSlot(3, byte(o.Activation), 0)
	return 1, b.EndObject() // dilation 1 is the default
}

// DepthwiseConv2DOptions belong to DepthwiseConv2D: input [1,H,W,C], weights
// [1,h,w,C×Multiplier], bias [C×Multiplier].
type DepthwiseConv2DOptions struct {
	Padding          Padding
	StrideH, StrideW int
	Multiplier       int
	Activation       Activation
}

func (o DepthwiseConv2DOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(7)
	b.PrependByteSlot(0, byte(o.Padding), 0)
	b.PrependInt32Slot(1, int32(o.StrideW), 0)
	b.PrependInt32Slot(2, int32(o.StrideH), 0)
	b.PrependInt32Slot(3, int32(o.Multiplier), 0)
	b.PrependByteSlot(4, byte(o.Activation), 0)
	return 2, b.EndObject()
}

// Pool2DOptions belong to MaxPool2D and AveragePool2D.
type Pool2DOptions struct {
	Padding          Padding
	StrideH, StrideW int
	FilterH, FilterW int
	Activation       Activation
}

func (o Pool2DOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(6)
	b.PrependByteSlot(0, byte(o.Padding), 0)
	b.PrependInt32Slot(1, int32(o.StrideW), 0)
	b.PrependInt32Slot(2, int32(o.StrideH), 0)
	b.PrependInt32Slot(3, int32(o.FilterW), 0)
	b.PrependInt32Slot(4, int32(o.FilterH), 0)
	b.PrependByteSlot(5, byte(o.Activation), 0)
	return 5, b.EndObject()
}

// FullyConnectedOptions belong to FullyConnected: input of N values in any
// shape, weights [O,N], bias [O], output [1,O].
type FullyConnectedOptions struct{ Activation Activation }

func (o FullyConnectedOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(4)
	b.PrependByteSlot(0, byte(o.Activation), 0)
	return 8, b.EndObject()
}

// SoftmaxOptions belong to Softmax, which normalizes the last dimension.
type SoftmaxOptions struct{ Beta float32 }

func (o SoftmaxOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(1)
	b.PrependFloat32Slot(0, o.Beta, 0)
	return 9, b.EndObject()
}

// AddOptions belong to Add.
type AddOptions struct{ Activation Activation }

func (o AddOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(2)
	b.PrependByteSlot(0, byte(o.Activation), 0)
	return 11, b.EndObject()
}

// ReshapeOptions belong to Reshape; the second input, an int32 tensor with the
// shape, says the same.
type ReshapeOptions struct{ Shape []int }

func (o ReshapeOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	shape := intVector(b, o.Shape)
	b.StartObject(1)
	b.PrependUOffsetTSlot(0, shape, 0)
	return 17, b.EndObject()
}

// ReducerOptions belong to Mean, whose second input, an int32 tensor, names the
// dimensions to average over.
type ReducerOptions struct{ KeepDims bool }

func (o ReducerOptions) write(b *flatbuffers.Builder) (byte, flatbuffers.UOffsetT) {
	b.StartObject(1)
	b.PrependBoolSlot(0, o.KeepDims, false)
	return 27, b.EndObject()
}
