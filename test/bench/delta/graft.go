package main

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	flatbuffers "github.com/google/flatbuffers/go"

	"github.com/droverhq/drover/infer/modelfile"
)

// head is a fully connected layer, its softmax, and how both are quantized.
type head struct {
	classes int
	weights []byte // uint8, [classes, 1024], around 128
	bias    []byte // int32
	scale   float32
}

const features = 1024 // of the backbone's embedding

// newHead makes a head as training would: normal weights that fill the range.
func newHead(classes int, seed uint64) head {
	rng := rand.New(rand.NewPCG(seed, 7))
	h := head{classes: classes, scale: float32(0.002 + 0.001*rng.Float64())}
	for range classes * features {
		h.weights = append(h.weights, byte(min(255, max(0, 128+36*rng.NormFloat64()))))
	}
	for range classes {
		h.bias = binary.LittleEndian.AppendUint32(h.bias, uint32(int32(2000*rng.NormFloat64())))
	}
	return h
}

// graft puts a head on a backbone. FlatBuffers refer forward only, so the new
// tables go in front of the old file, whose tables they use where they are. It
// returns the new file and the new tensors' bytes.
func graft(backbone []byte, h head) (model, fresh []byte, err error) {
	m, err := modelfile.Parse(backbone)
	if err != nil {
		return nil, nil, err
	}
	for len(backbone)%16 != 0 { // alignment counts from the end
		backbone = append(backbone[:len(backbone):len(backbone)], 0)
	}
	g := grafter{b: flatbuffers.NewBuilder(len(backbone) + 1<<20), old: backbone}
	g.b.Prep(16, len(backbone))
	g.b.CreateByteVector(backbone)
	root := g.at(flatbuffers.GetUOffsetT(backbone))
	graph := g.tables(root, 2)[0]

	buffers := append(g.tables(root, 4), g.buffer(h.weights), g.buffer(h.bias))
	codes := append(g.tables(root, 1), g.code(modelfile.FullyConnected), g.code(modelfile.Softmax))
	n, embedding := len(m.Tensors), m.Outputs[0]
	in := m.Tensors[embedding].Quant.Scales[0]
	tensors := append(g.tables(graph, 0),
		g.tensor("head/weights", []int32{int32(h.classes), features}, modelfile.Uint8, len(buffers)-2, h.scale, 128),
		g.tensor("head/bias", []int32{int32(h.classes)}, modelfile.Int32, len(buffers)-1, in*h.scale, 0),
		g.tensor("head/logits", []int32{1, int32(h.classes)}, modelfile.Uint8, 0, 0.1, 128),
		g.tensor("scores", []int32{1, int32(h.classes)}, modelfile.Uint8, 0, 1.0/256, 0))
	operators := append(g.tables(graph, 3),
		g.operator(len(codes)-2, 8, g.options(0), []int32{int32(embedding), int32(n), int32(n + 1)}, []int32{int32(n + 2)}),
		g.operator(len(codes)-1, 9, g.options(1), []int32{int32(n + 2)}, []int32{int32(n + 3)}))
	var ins []int32
	for _, i := range m.Inputs {
		ins = append(ins, int32(i))
	}
	model = g.finish(tensors, operators, buffers, codes, ins, int32(n+3))
	if _, err := modelfile.Parse(model); err != nil {
		return nil, nil, fmt.Errorf("the grafted model cannot be read: %w", err)
	}
	return model, append(append([]byte(nil), h.weights...), h.bias...), nil
}

// grafter writes tables in front of an old file.
type grafter struct {
	b   *flatbuffers.Builder
	old []byte
}

func (g *grafter) at(pos flatbuffers.UOffsetT) flatbuffers.Table {
	return flatbuffers.Table{Bytes: g.old, Pos: pos}
}

// tables are the tables of a vector in the old file, as the builder counts: by
// their distance from the end.
func (g *grafter) tables(t any, slot int) []flatbuffers.UOffsetT {
	var table flatbuffers.Table
	switch t := t.(type) {
	case flatbuffers.Table:
		table = t
	case flatbuffers.UOffsetT:
		table = g.at(flatbuffers.UOffsetT(len(g.old)) - t)
	}
	o := flatbuffers.UOffsetT(table.Offset(flatbuffers.VOffsetT(4 + 2*slot)))
	var out []flatbuffers.UOffsetT
	for i := range table.VectorLen(o) {
		pos := table.Indirect(table.Vector(o) + flatbuffers.UOffsetT(4*i))
		out = append(out, flatbuffers.UOffsetT(len(g.old))-pos)
	}
	return out
}

func (g *grafter) buffer(data []byte) flatbuffers.UOffsetT {
	g.b.Prep(16, len(data))
	v := g.b.CreateByteVector(data)
	g.b.StartObject(1)
	g.b.PrependUOffsetTSlot(0, v, 0)
	return g.b.EndObject()
}

func (g *grafter) code(op modelfile.Op) flatbuffers.UOffsetT {
	g.b.StartObject(4)
	g.b.PrependInt8Slot(0, int8(op), 0)
	g.b.PrependInt32Slot(3, int32(op), 0)
	return g.b.EndObject()
}

func (g *grafter) ints(v []int32) flatbuffers.UOffsetT {
	g.b.StartVector(4, len(v), 4)
	for i := len(v) - 1; i >= 0; i-- {
		g.b.PrependInt32(v[i])
	}
	return g.b.EndVector(len(v))
}

func (g *grafter) tensor(name string, shape []int32, t modelfile.Type, buffer int, scale float32, zero int64) flatbuffers.UOffsetT {
	s, n := g.ints(shape), g.b.CreateString(name)
	g.b.StartVector(4, 1, 4)
	g.b.PrependFloat32(scale)
	scales := g.b.EndVector(1)
	g.b.StartVector(8, 1, 8)
	g.b.PrependInt64(zero)
	zeros := g.b.EndVector(1)
	g.b.StartObject(7)
	g.b.PrependUOffsetTSlot(2, scales, 0)
	g.b.PrependUOffsetTSlot(3, zeros, 0)
	quant := g.b.EndObject()
	g.b.StartObject(8)
	g.b.PrependUOffsetTSlot(0, s, 0)
	g.b.PrependByteSlot(1, byte(t), 0)
	g.b.PrependUint32Slot(2, uint32(buffer), 0)
	g.b.PrependUOffsetTSlot(3, n, 0)
	g.b.PrependUOffsetTSlot(4, quant, 0)
	return g.b.EndObject()
}

// options are those of a fully connected layer (none), or of softmax: beta.
func (g *grafter) options(beta float32) flatbuffers.UOffsetT {
	g.b.StartObject(1)
	g.b.PrependFloat32Slot(0, beta, 0)
	return g.b.EndObject()
}

func (g *grafter) operator(code int, kind byte, options flatbuffers.UOffsetT, in, out []int32) flatbuffers.UOffsetT {
	i, o := g.ints(in), g.ints(out)
	g.b.StartObject(5)
	g.b.PrependUint32Slot(0, uint32(code), 0)
	g.b.PrependUOffsetTSlot(1, i, 0)
	g.b.PrependUOffsetTSlot(2, o, 0)
	g.b.PrependByteSlot(3, kind, 0)
	g.b.PrependUOffsetTSlot(4, options, 0)
	return g.b.EndObject()
}

func (g *grafter) finish(tensors, operators, buffers, codes []flatbuffers.UOffsetT, in []int32, out int32) []byte {
	t, o := g.b.CreateVectorOfTables(tensors), g.b.CreateVectorOfTables(operators)
	i, u := g.ints(in), g.ints([]int32{out})
	g.b.StartObject(5)
	g.b.PrependUOffsetTSlot(0, t, 0)
	g.b.PrependUOffsetTSlot(1, i, 0)
	g.b.PrependUOffsetTSlot(2, u, 0)
	g.b.PrependUOffsetTSlot(3, o, 0)
	graph := g.b.EndObject()
	graphs := g.b.CreateVectorOfTables([]flatbuffers.UOffsetT{graph})
	bv, cv := g.b.CreateVectorOfTables(buffers), g.b.CreateVectorOfTables(codes)
	g.b.StartObject(5)
	g.b.PrependUint32Slot(0, 3, 0)
	g.b.PrependUOffsetTSlot(1, cv, 0)
	g.b.PrependUOffsetTSlot(2, graphs, 0)
	g.b.PrependUOffsetTSlot(4, bv, 0)
	g.b.FinishWithFileIdentifier(g.b.EndObject(), []byte(modelfile.Identifier))
	return g.b.FinishedBytes()
}
