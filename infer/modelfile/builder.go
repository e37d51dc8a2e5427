package modelfile

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"

	"github.com/droverhq/drover/infer"
)

// ErrBuild is wrapped by errors about a model that cannot be written.
var ErrBuild = errors.New("modelfile: cannot write model")

// TensorDef describes a tensor to be written. Data makes it constant; little
// endian, row-major, exactly as many bytes as shape and type need.
type TensorDef struct {
	Name  string
	Shape []int
	Type  Type
	Quant infer.Quant
	Data  []byte
}

// Metadata is what TFLITE_METADATA records of a classifier.
type Metadata struct {
	Name        string
	Description string
	Mean, Std   []float32 // of the input, in pixel values 0…255; one value or one per channel
	Gray        bool      // the input's colour space; else RGB
	Labels      []string  // of the output, index = class; none contains a line break
}

// Builder collects one subgraph and writes it as a .tflite file. Indices are
// given out in the order of the calls. It is not safe for concurrent use.
type Builder struct {
	description string
	tensors     []TensorDef
	operators   []operatorDef
	codes       []OpCode
	in, out     []int
	meta        *Metadata
}

type operatorDef struct {
	code            int
	inputs, outputs []int
	options         Options
}

// NewBuilder starts an empty model.
func NewBuilder(description string) *Builder { return &Builder{description: description} }

// Tensor adds a tensor and returns its index. The definition's slices are kept.
func (m *Builder) Tensor(t TensorDef) int {
	m.tensors = append(m.tensors, t)
	return len(m.tensors) - 1
}

// Operator adds a builtin operator. Its version follows from the type of its
// first input, so the tensors come first. nil options mean none.
func (m *Builder) Operator(op Op, options Options, inputs, outputs []int) {
	code := OpCode{Builtin: op, Version: m.version(op, inputs)}
	at := -1
	for i, c := range m.codes {
		if c == code {
			at = i
		}
	}
	if at < 0 {
		at = len(m.codes)
		m.codes = append(m.codes, code)
	}
	m.operators = append(m.operators, operatorDef{code: at, inputs: inputs, outputs: outputs, options: options})
}

// version is the operator version that TFLite's converter writes: a runtime
// older than the feature must refuse the model instead of misreading it.
func (m *Builder) version(op Op, inputs []int) int {
	if len(inputs) == 0 || inputs[0] < 0 || inputs[0] >= len(m.tensors) || m.tensors[inputs[0]].Type != Int8 {
		return 1
	}
	switch op {
	case FullyConnected:
		return 4
	case Conv2D, DepthwiseConv2D:
		return 3
	case MaxPool2D, AveragePool2D, Mean, Add, Softmax, ReLU, Dequantize:
		return 2
	}
	return 1
}

// IO names the model's inputs and outputs.
func (m *Builder) IO(inputs, outputs []int) { m.in, m.out = inputs, outputs }

// Metadata adds TFLITE_METADATA and, if there are labels, the label file.
func (m *Builder) Metadata(meta Metadata) { m.meta = &meta }

const labelsFile = "labels.txt"

// Bytes writes the model: the same calls give the same bytes.
func (m *Builder) Bytes() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	out := m.flatbuffer()
	if m.meta != nil && len(m.meta.Labels) > 0 {
		var err error
		if out, err = appendZip(out, labelsFile, joinLines(m.meta.Labels)); err != nil {
			return nil, err
		}
	}
	if _, err := Parse(out); err != nil { // what we write, we must be able to read
		return nil, fmt.Errorf("%w: %w", ErrBuild, err)
	}
	return out, nil
}

func (m *Builder) check() error {
	if len(m.in) == 0 || len(m.out) == 0 {
		return fmt.Errorf("%w: no inputs or no outputs", ErrBuild)
	}
	for i, t := range m.tensors {
		n := t.Type.Size()
		for _, d := range t.Shape {
			if d < 1 || n > infer.MaxModelBytes/d {
				return fmt.Errorf("%w: tensor %d %q has shape %v", ErrBuild, i, t.Name, t.Shape)
			}
			n *= d
		}
		if n == 0 || len(t.Data) > 0 && len(t.Data) != n {
			return fmt.Errorf("%w: tensor %d %q of type %d and shape %v needs %d bytes, has %d", ErrBuild, i, t.Name, t.Type, t.Shape, n, len(t.Data))
		}
		q := t.Quant
		if len(q.Scales) != len(q.ZeroPoints) || len(q.Scales) > 1 && (q.Axis < 0 || q.Axis >= len(t.Shape) || t.Shape[q.Axis] != len(q.Scales)) {
			return fmt.Errorf("%w: tensor %d %q of shape %v has %d scales and %d zero points along %d",
				ErrBuild, i, t.Name, t.Shape, len(q.Scales), len(q.ZeroPoints), q.Axis)
		}
	}
	if m.meta == nil {
		return nil
	}
	for i, l := range m.meta.Labels {
		if l == "" || len(l) > infer.MaxLabelBytes || bytes.ContainsAny([]byte(l), "\r\n") {
			return fmt.Errorf("%w: label %d is %q", ErrBuild, i, l)
		}
	}
	if len(m.meta.Mean) != len(m.meta.Std) {
		return fmt.Errorf("%w: %d mean and %d std values", ErrBuild, len(m.meta.Mean), len(m.meta.Std))
	}
	return nil
}

func joinLines(lines []string) []byte {
	var out []byte
	for _, l := range lines {
		out = append(append(out, l...), '\n')
	}
	return out
}

// appendZip puts an archive with one stored file behind the model. Its offsets
// count from the start of the whole file, as other readers of such models
// expect. Without a time the bytes depend on the content alone.
func appendZip(model []byte, name string, content []byte) ([]byte, error) {
	var tail bytes.Buffer
	z := zip.NewWriter(&tail)
	z.SetOffset(int64(len(model)))
	f, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
	if err == nil {
		_, err = f.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("%w: associated file %q: %w", ErrBuild, name, err)
	}
	return append(model, tail.Bytes()...), nil
}
