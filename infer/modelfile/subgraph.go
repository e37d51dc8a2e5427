package modelfile

import (
	"encoding/binary"
	"math"
)

// subgraph reads and checks one subgraph of a model whose buffers and operator
// codes are already known.
type subgraph struct {
	m               *Model
	tensors         []Tensor
	operators       []Operator
	inputs, outputs []int
}

func (g *subgraph) read(t table) {
	r := t.r
	if r == nil {
		return
	}
	t.str(graphName, "subgraph name")
	tensors, okT := t.vec(graphTensors, 4, "tensors")
	operators, okO := t.vec(graphOperators, 4, "operators")
	if r.err == nil && (!okT || !okO) {
		r.fail(ErrCorrupt, "subgraph without tensors or operators")
	}
	if tensors.n > MaxTensors || operators.n > MaxOperators {
		r.fail(ErrLimit, "%d tensors and %d operators", tensors.n, operators.n)
	}
	for i := 0; i < tensors.n && r.err == nil; i++ {
		g.tensors = append(g.tensors, g.tensor(tensors.table(i), i))
	}
	g.inputs = g.indices(t, graphInputs, "subgraph inputs", 0)
	g.outputs = g.indices(t, graphOutputs, "subgraph outputs", 0)
	for i := 0; i < operators.n && r.err == nil; i++ {
		g.operators = append(g.operators, g.operator(operators.table(i), i))
	}
}

// indices reads a vector of tensor numbers, each at least least (−1 or 0).
func (g *subgraph) indices(t table, slot int, what string, least int) []int {
	v, ok := t.vec(slot, 4, what)
	if !ok {
		return nil
	}
	list := v.ints()
	for _, i := range list {
		if i < least || i >= len(g.tensors) {
			t.r.fail(ErrCorrupt, "%s name tensor %d of %d", what, i, len(g.tensors))
			return nil
		}
	}
	return list
}

func (g *subgraph) tensor(t table, index int) Tensor {
	r := t.r
	if r == nil {
		return Tensor{}
	}
	out := Tensor{
		Name:     t.str(tensorName, "tensor name"),
		Type:     Type(t.byte(tensorType, 0)),
		Buffer:   t.u32(tensorBuffer, 0),
		Variable: t.byte(tensorVariable, 0) != 0,
	}
	if v, ok := t.vec(tensorShape, 4, "tensor shape"); ok {
		if v.n > MaxDims {
			r.fail(ErrLimit, "tensor %d has %d dimensions, allowed %d", index, v.n, MaxDims)
			return out
		}
		out.Shape = v.ints()
	}
	t.vec(tensorSignature, 4, "shape signature")
	t.byte(tensorHasRank, 0)
	out.Quant = readQuant(t)
	out.Sparse = readSparsity(t)
	if v, ok := t.vec(tensorVariants, 4, "variant types"); ok {
		for i := 0; i < v.n && r.err == nil; i++ {
			e := v.table(i)
			e.vec(0, 4, "variant shape")
			e.byte(1, 0)
			e.byte(2, 0)
		}
	}
	if r.err == nil {
		g.checkTensor(r, out, index)
	}
	return out
}

// checkTensor compares shape and data: the library computes the one from the
// other and then reads.
func (g *subgraph) checkTensor(r *reader, t Tensor, index int) {
	if t.Buffer != 0 && t.Buffer >= len(g.m.Buffers) {
		r.fail(ErrCorrupt, "tensor %d names buffer %d of %d", index, t.Buffer, len(g.m.Buffers))
		return
	}
	n := max(t.Type.Size(), 1)
	for _, d := range t.Shape {
		if d < 0 || (d > 0 && n > math.MaxInt32/d) {
			r.fail(ErrCorrupt, "tensor %d has shape %v", index, t.Shape)
			return
		}
		n *= d
	}
	if t.Buffer == 0 {
		return // no data, by convention, whatever buffer 0 holds
	}
	data := g.m.Buffers[t.Buffer].Data
	if len(data) > 0 && t.Type.Size() > 0 && !t.Sparse && len(data) != n {
		r.fail(ErrCorrupt, "tensor %d of shape %v needs %d bytes, its buffer has %d", index, t.Shape, n, len(data))
	}
	if t.Type == String && len(data) > 0 && !validStrings(data) {
		r.fail(ErrCorrupt, "tensor %d holds no list of strings", index)
	}
}

// validStrings checks the runtime's packed strings: their number n, n + 1
// rising offsets from the start, the last one being the length, and the text.
func validStrings(b []byte) bool {
	if len(b) < 8 {
		return false
	}
	n := int(int32(binary.LittleEndian.Uint32(b)))
	if n < 0 || n > len(b)/4-2 {
		return false
	}
	last := 4 * (n + 2)
	for i := range n + 1 {
		off := int(binary.LittleEndian.Uint32(b[4+4*i:]))
		if off < last || off > len(b) {
			return false
		}
		last = off
	}
	return true
}

func readQuant(t table) Quant {
	q, ok := t.sub(tensorQuant, "quantization")
	if !ok {
		return Quant{}
	}
	q.vec(quantMin, 4, "quantization minima")
	q.vec(quantMax, 4, "quantization maxima")
	var out Quant
	if v, ok := q.vec(quantScale, 4, "scales"); ok {
		out.Scales = v.floats()
	}
	if v, ok := q.vec(quantZero, 8, "zero points"); ok {
		out.ZeroPoints = v.int64s()
	}
	out.Axis = q.i32(quantAxis, 0)
	if q.byte(quantDetailsType, 0) != 0 {
		if d, ok := q.sub(quantDetails, "quantization details"); ok {
			d.vec(0, 1, "custom quantization")
		}
	}
	return out
}

func readSparsity(t table) bool {
	s, ok := t.sub(tensorSparsity, "sparsity")
	if !ok {
		return false
	}
	s.vec(0, 4, "traversal order")
	s.vec(1, 4, "block map")
	dims, _ := s.vec(2, 4, "sparse dimensions")
	for i := 0; i < dims.n && t.r.err == nil; i++ {
		d := dims.table(i)
		d.byte(0, 0)
		d.i32(1, 0)
		for slot := 2; slot < 6; slot += 2 {
			// 1: int32, 2: uint16, 3: uint8
			kind := d.byte(slot, 0)
			if kind < 1 || kind > 3 {
				continue
			}
			if v, ok := d.sub(slot+1, "sparse index"); ok {
				v.vec(0, []int{4, 2, 1}[kind-1], "sparse index values")
			}
		}
	}
	return true
}

func (g *subgraph) operator(t table, index int) Operator {
	r := t.r
	if r == nil {
		return Operator{}
	}
	o := Operator{
		Code:    t.u32(opCode, 0),
		Inputs:  g.indices(t, opInputs, "operator inputs", -1),
		Outputs: g.indices(t, opOutputs, "operator outputs", 0),
	}
	g.indices(t, opIntermediates, "operator intermediates", -1)
	t.vec(opCustom, 1, "custom options")
	t.byte(opCustomFormat, 0)
	t.vec(opMutating, 1, "mutated inputs")
	if t.u64(opLargeOffset) > 1 || t.u64(opLargeSize) > 1 {
		r.fail(ErrUnsupported, "options of operator %d stand outside the FlatBuffer", index)
	}
	readOptions(t)
	t.byte(opOptions2Type, 0)
	t.sub(opOptions2, "second builtin options")
	if r.err == nil && o.Code >= len(g.m.Codes) {
		r.fail(ErrCorrupt, "operator %d has code %d of %d", index, o.Code, len(g.m.Codes))
	}
	return o
}
