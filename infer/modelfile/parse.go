package modelfile

import (
	"fmt"

	"github.com/droverhq/drover/infer"
)

// Slots of the schema's tables.
const (
	modelVersion, modelCodes, modelSubgraphs, modelDescription = 0, 1, 2, 3
	modelBuffers, modelMetadataBuffer, modelMetadata           = 4, 5, 6
	modelSignatures                                            = 7

	codeDeprecated, codeCustom, codeVersion, codeBuiltin = 0, 1, 2, 3

	graphTensors, graphInputs, graphOutputs, graphOperators, graphName = 0, 1, 2, 3, 4

	tensorShape, tensorType, tensorBuffer, tensorName, tensorQuant = 0, 1, 2, 3, 4
	tensorVariable, tensorSparsity, tensorSignature                = 5, 6, 7
	tensorHasRank, tensorVariants                                  = 8, 9

	quantMin, quantMax, quantScale, quantZero = 0, 1, 2, 3
	quantDetailsType, quantDetails, quantAxis = 4, 5, 6

	opCode, opInputs, opOutputs, opOptionsType, opOptions  = 0, 1, 2, 3, 4
	opCustom, opCustomFormat, opMutating, opIntermediates  = 5, 6, 7, 8
	opLargeOffset, opLargeSize, opOptions2Type, opOptions2 = 9, 10, 11, 12

	bufferData, bufferOffset, bufferSize = 0, 1, 2

	entryName, entryBuffer = 0, 1
)

// Parse reads a .tflite file. Slices of the result point into b. It never
// panics, whatever b holds; its errors wrap one of this package's kinds.
func Parse(b []byte) (*Model, error) {
	if len(b) < 8 || string(b[4:8]) != Identifier {
		return nil, fmt.Errorf("%w: identifier %q missing in %d bytes", ErrNotModel, Identifier, len(b))
	}
	if len(b) > infer.MaxModelBytes {
		return nil, fmt.Errorf("%w: %d bytes, allowed %d", ErrLimit, len(b), infer.MaxModelBytes)
	}
	r := &reader{b: b}
	m := &Model{raw: b}
	if to, ok := r.follow(0, "root"); ok {
		m.read(r.table(to, "model"))
	}
	if r.err != nil {
		return nil, r.err
	}
	return m, nil
}

func (m *Model) read(root table) {
	r := root.r
	if r == nil {
		return
	}
	if v := root.u32(modelVersion, 0); r.err == nil && v != schemaVersion {
		r.fail(ErrUnsupported, "schema version %d, wanted %d", v, schemaVersion)
		return
	}
	m.Description = root.str(modelDescription, "description")
	m.readCodes(root)
	m.readBuffers(root)
	m.readEntries(root)
	graphs, ok := root.vec(modelSubgraphs, 4, "subgraphs")
	if r.err == nil && (!ok || graphs.n == 0) {
		r.fail(ErrCorrupt, "no subgraph")
	}
	if graphs.n > MaxSubgraphs {
		r.fail(ErrLimit, "%d subgraphs, allowed %d", graphs.n, MaxSubgraphs)
		return
	}
	m.Subgraphs = graphs.n
	for i := 0; i < graphs.n && r.err == nil; i++ {
		g := subgraph{m: m}
		g.read(graphs.table(i))
		if i == 0 {
			m.Tensors, m.Operators, m.Inputs, m.Outputs = g.tensors, g.operators, g.inputs, g.outputs
		}
	}
	readSignatures(root)
}

func (m *Model) readCodes(root table) {
	v, ok := root.vec(modelCodes, 4, "operator codes")
	if root.r.err == nil && !ok {
		root.r.fail(ErrCorrupt, "no operator codes")
	}
	for i := 0; i < v.n && root.r.err == nil; i++ {
		t := v.table(i)
		// The old field is a signed byte that ends at 127; the library takes
		// the larger of the two.
		code := max(int(int8(t.byte(codeDeprecated, 0))), t.i32(codeBuiltin, 0))
		c := OpCode{Builtin: Op(code), Custom: t.str(codeCustom, "custom operator name"), Version: t.i32(codeVersion, 1)}
		if root.r.err == nil && (code < 0 || code > maxOp) {
			root.r.fail(ErrCorrupt, "operator code %d", code)
		}
		if root.r.err == nil && c.Builtin == Custom && c.Custom == "" {
			root.r.fail(ErrCorrupt, "custom operator without a name")
		}
		m.Codes = append(m.Codes, c)
	}
}

func (m *Model) readBuffers(root table) {
	v, ok := root.vec(modelBuffers, 4, "buffers")
	if root.r.err == nil && !ok {
		root.r.fail(ErrCorrupt, "no buffers")
	}
	for i := 0; i < v.n && root.r.err == nil; i++ {
		t := v.table(i)
		var b Buffer
		if d, ok := t.vec(bufferData, 1, "buffer data"); ok {
			b.Offset, b.Data = d.pos, d.bytes()
		}
		if t.u64(bufferOffset) > 1 || t.u64(bufferSize) > 1 {
			root.r.fail(ErrUnsupported, "buffer %d stands outside the FlatBuffer", i)
		}
		m.Buffers = append(m.Buffers, b)
	}
	root.vec(modelMetadataBuffer, 4, "metadata buffers")
}

// readEntries also sees to it that each entry has what the library takes for
// granted: a name and a buffer with a data vector.
func (m *Model) readEntries(root table) {
	v, _ := root.vec(modelMetadata, 4, "metadata")
	for i := 0; i < v.n && root.r.err == nil; i++ {
		t := v.table(i)
		e := Entry{Name: t.str(entryName, "metadata name"), Buffer: t.u32(entryBuffer, 0)}
		if root.r.err != nil {
			return
		}
		if !t.has(entryName) {
			root.r.fail(ErrCorrupt, "metadata entry %d has no name", i)
		} else if e.Buffer >= len(m.Buffers) {
			root.r.fail(ErrCorrupt, "metadata %q names buffer %d of %d", e.Name, e.Buffer, len(m.Buffers))
		} else if m.Buffers[e.Buffer].Offset == 0 {
			root.r.fail(ErrCorrupt, "metadata %q names buffer %d, which has no data", e.Name, e.Buffer)
		}
		m.Entries = append(m.Entries, e)
	}
}

// readSignatures checks the named calls, which drover does not use but the
// library reads when it loads the model.
func readSignatures(root table) {
	v, _ := root.vec(modelSignatures, 4, "signatures")
	for i := 0; i < v.n && root.r.err == nil; i++ {
		t := v.table(i)
		t.str(2, "signature key")
		t.u32(4, 0)
		for slot := range 2 {
			maps, ok := t.vec(slot, 4, "signature tensors")
			if root.r.err == nil && (!ok || !t.has(2)) {
				root.r.fail(ErrCorrupt, "signature %d is incomplete", i)
			}
			for j := 0; j < maps.n && root.r.err == nil; j++ {
				e := maps.table(j)
				e.str(0, "signature tensor name")
				e.u32(1, 0)
				if root.r.err == nil && !e.has(0) {
					root.r.fail(ErrCorrupt, "signature %d has a tensor without a name", i)
				}
			}
		}
	}
}
