package modelfile

import flatbuffers "github.com/google/flatbuffers/go"

func intVector(b *flatbuffers.Builder, v []int) flatbuffers.UOffsetT {
	b.StartVector(4, len(v), 4)
	for i := len(v) - 1; i >= 0; i-- {
		b.PrependInt32(int32(v[i]))
	}
	return b.EndVector(len(v))
}

func floatVector(b *flatbuffers.Builder, v []float32) flatbuffers.UOffsetT {
	b.StartVector(4, len(v), 4)
	for i := len(v) - 1; i >= 0; i-- {
		b.PrependFloat32(v[i])
	}
	return b.EndVector(len(v))
}

// flatbuffer writes the model without its archive. FlatBuffers grow from the
// end to the front: children come before their parents.
func (m *Builder) flatbuffer() []byte {
	b := flatbuffers.NewBuilder(1 << 16)

	// Buffer 0 is empty by convention; then the constants in tensor order.
	data := [][]byte{nil}
	at := make([]int, len(m.tensors))
	for i, t := range m.tensors {
		if len(t.Data) > 0 {
			at[i] = len(data)
			data = append(data, t.Data)
		}
	}
	var entries []flatbuffers.UOffsetT
	if m.meta != nil {
		name := b.CreateString(metadataEntry)
		b.StartObject(2)
		b.PrependUOffsetTSlot(entryName, name, 0)
		b.PrependUint32Slot(entryBuffer, uint32(len(data)), 0)
		entries = append(entries, b.EndObject())
		data = append(data, m.meta.flatbuffer())
	}
	buffers := writeBuffers(b, data)
	graph := m.writeGraph(b, at)
	codes := b.CreateVectorOfTables(m.writeCodes(b))
	graphs := b.CreateVectorOfTables([]flatbuffers.UOffsetT{graph})
	meta := b.CreateVectorOfTables(entries)
	description := b.CreateString(m.description)

	b.StartObject(8)
	b.PrependUint32Slot(modelVersion, schemaVersion, 0)
	b.PrependUOffsetTSlot(modelCodes, codes, 0)
	b.PrependUOffsetTSlot(modelSubgraphs, graphs, 0)
	b.PrependUOffsetTSlot(modelDescription, description, 0)
	b.PrependUOffsetTSlot(modelBuffers, buffers, 0)
	b.PrependUOffsetTSlot(modelMetadata, meta, 0)
	b.FinishWithFileIdentifier(b.EndObject(), []byte(Identifier))
	return b.FinishedBytes()
}

// writeBuffers aligns data to 16 bytes in the file: kernels use it in place.
func writeBuffers(b *flatbuffers.Builder, data [][]byte) flatbuffers.UOffsetT {
	tables := make([]flatbuffers.UOffsetT, len(data))
	for i, d := range data {
		var v flatbuffers.UOffsetT
		if len(d) > 0 {
			b.Prep(16, len(d))
			v = b.CreateByteVector(d)
		}
		b.StartObject(1)
		b.PrependUOffsetTSlot(bufferData, v, 0)
		tables[i] = b.EndObject()
	}
	return b.CreateVectorOfTables(tables)
}

func (m *Builder) writeCodes(b *flatbuffers.Builder) []flatbuffers.UOffsetT {
	var tables []flatbuffers.UOffsetT
	for _, c := range m.codes {
		b.StartObject(4)
		// Old runtimes know only the old field, which ends at 127.
		b.PrependInt8Slot(codeDeprecated, int8(min(c.Builtin, 127)), 0)
		b.PrependInt32Slot(codeVersion, int32(c.Version), 1)
		b.PrependInt32Slot(codeBuiltin, int32(c.Builtin), 0)
		tables = append(tables, b.EndObject())
	}
	return tables
}

func (m *Builder) writeGraph(b *flatbuffers.Builder, bufferOf []int) flatbuffers.UOffsetT {
	var tensors, operators []flatbuffers.UOffsetT
	for i, t := range m.tensors {
		tensors = append(tensors, writeTensor(b, t, bufferOf[i]))
	}
	for _, o := range m.operators {
		in, out := intVector(b, o.inputs), intVector(b, o.outputs)
		var kind byte
		var options flatbuffers.UOffsetT
		if o.options != nil {
			kind, options = o.options.write(b)
		}
		b.StartObject(5)
		b.PrependUint32Slot(opCode, uint32(o.code), 0)
		b.PrependUOffsetTSlot(opInputs, in, 0)
		b.PrependUOffsetTSlot(opOutputs, out, 0)
		b.PrependByteSlot(opOptionsType, kind, 0)
		b.PrependUOffsetTSlot(opOptions, options, 0)
		operators = append(operators, b.EndObject())
	}
	tv, ov := b.CreateVectorOfTables(tensors), b.CreateVectorOfTables(operators)
	in, out := intVector(b, m.in), intVector(b, m.out)
	name := b.CreateString("main")
	b.StartObject(5)
	b.PrependUOffsetTSlot(graphTensors, tv, 0)
	b.PrependUOffsetTSlot(graphInputs, in, 0)
	b.PrependUOffsetTSlot(graphOutputs, out, 0)
	b.PrependUOffsetTSlot(graphOperators, ov, 0)
	b.PrependUOffsetTSlot(graphName, name, 0)
	return b.EndObject()
}

func writeTensor(b *flatbuffers.Builder, t TensorDef, buffer int) flatbuffers.UOffsetT {
	shape, name := intVector(b, t.Shape), b.CreateString(t.Name)
	var quant flatbuffers.UOffsetT
	if len(t.Quant.Scales) > 0 {
		scales := floatVector(b, t.Quant.Scales)
		b.StartVector(8, len(t.Quant.ZeroPoints), 8)
		for i := len(t.Quant.ZeroPoints) - 1; i >= 0; i-- {
			b.PrependInt64(int64(t.Quant.ZeroPoints[i]))
		}
		zeros := b.EndVector(len(t.Quant.ZeroPoints))
		b.StartObject(7)
		b.PrependUOffsetTSlot(quantScale, scales, 0)
		b.PrependUOffsetTSlot(quantZero, zeros, 0)
		b.PrependInt32Slot(quantAxis, int32(t.Quant.Axis), 0)
		quant = b.EndObject()
	}
	b.StartObject(8)
	b.PrependUOffsetTSlot(tensorShape, shape, 0)
	b.PrependByteSlot(tensorType, byte(t.Type), 0)
	b.PrependUint32Slot(tensorBuffer, uint32(buffer), 0)
	b.PrependUOffsetTSlot(tensorName, name, 0)
	b.PrependUOffsetTSlot(tensorQuant, quant, 0)
	return b.EndObject()
}

// flatbuffer writes the metadata's own FlatBuffer: model → subgraph → input
// with content and normalization, output with the label file.
func (m *Metadata) flatbuffer() []byte {
	b := flatbuffers.NewBuilder(1024)
	input := b.CreateVectorOfTables([]flatbuffers.UOffsetT{m.writeInput(b)})
	output := b.CreateVectorOfTables([]flatbuffers.UOffsetT{m.writeOutput(b)})
	b.StartObject(7)
	b.PrependUOffsetTSlot(metaInputs, input, 0)
	b.PrependUOffsetTSlot(metaOutputs, output, 0)
	graphs := b.CreateVectorOfTables([]flatbuffers.UOffsetT{b.EndObject()})
	name, description, least := b.CreateString(m.Name), b.CreateString(m.Description), b.CreateString("1.0.0")
	b.StartObject(8)
	b.PrependUOffsetTSlot(metaName, name, 0)
	b.PrependUOffsetTSlot(metaDescription, description, 0)
	b.PrependUOffsetTSlot(metaSubgraphs, graphs, 0)
	b.PrependUOffsetTSlot(metaMinParser, least, 0)
	b.FinishWithFileIdentifier(b.EndObject(), []byte(metadataIdentifier))
	return b.FinishedBytes()
}

func (m *Metadata) writeInput(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	color := byte(1) // ColorSpaceType RGB
	if m.Gray {
		color = 2
	}
	b.StartObject(2)
	b.PrependByteSlot(0, color, 0)
	image := b.EndObject()
	b.StartObject(3)
	b.PrependByteSlot(0, 2, 0) // ContentProperties ImageProperties
	b.PrependUOffsetTSlot(1, image, 0)
	content := b.EndObject()
	var units flatbuffers.UOffsetT
	if len(m.Mean) > 0 {
		mean, std := floatVector(b, m.Mean), floatVector(b, m.Std)
		b.StartObject(2)
		b.PrependUOffsetTSlot(0, mean, 0)
		b.PrependUOffsetTSlot(1, std, 0)
		options := b.EndObject()
		b.StartObject(2)
		b.PrependByteSlot(0, unitNormalize, 0)
		b.PrependUOffsetTSlot(1, options, 0)
		units = b.CreateVectorOfTables([]flatbuffers.UOffsetT{b.EndObject()})
	}
	name := b.CreateString("image")
	b.StartObject(7)
	b.PrependUOffsetTSlot(metaTensorName, name, 0)
	b.PrependUOffsetTSlot(metaContent, content, 0)
	b.PrependUOffsetTSlot(metaUnits, units, 0)
	return b.EndObject()
}

func (m *Metadata) writeOutput(b *flatbuffers.Builder) flatbuffers.UOffsetT {
	var files flatbuffers.UOffsetT
	if len(m.Labels) > 0 {
		file := b.CreateString(labelsFile)
		b.StartObject(4)
		b.PrependUOffsetTSlot(fileName, file, 0)
		b.PrependByteSlot(fileType, fileAxisLabels, 0)
		files = b.CreateVectorOfTables([]flatbuffers.UOffsetT{b.EndObject()})
	}
	name := b.CreateString("probability")
	b.StartObject(7)
	b.PrependUOffsetTSlot(metaTensorName, name, 0)
	b.PrependUOffsetTSlot(metaFiles, files, 0)
	return b.EndObject()
}
