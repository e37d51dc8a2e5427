package modelfile

import "github.com/droverhq/drover/infer"

// Type is the type of a tensor's elements, numbered as in the schema.
type Type uint8

// The element types.
const (
	Float32 Type = 0
	Float16 Type = 1
	Int32   Type = 2
	Uint8   Type = 3
	Int64   Type = 4
	String  Type = 5
	Bool    Type = 6
	Int16   Type = 7
	Int8    Type = 9
)

// Size is the bytes of one element; 0 where elements have no fixed size in
// whole bytes, or the type is unknown.
func (t Type) Size() int {
	const sizes = "\x04\x02\x04\x01\x08\x00\x01\x02\x08\x01\x08\x10\x08\x00\x00\x04\x02\x00"
	if int(t) < len(sizes) {
		return int(sizes[t])
	}
	return 0
}

// DType translates into drover's contract; "" for a type that cannot stand at
// a classifier's input or output.
func (t Type) DType() infer.DType {
	switch t {
	case Float32:
		return infer.Float32
	case Uint8:
		return infer.Uint8
	case Int8:
		return infer.Int8
	}
	return ""
}

// OpCode names an operator a model uses.
type OpCode struct {
	Builtin Op
	Custom  string // name, when Builtin is Custom
	Version int
}

// Name is the custom name, or the builtin one.
func (c OpCode) Name() string {
	if c.Builtin == Custom {
		return c.Custom
	}
	return c.Builtin.String()
}

// Quant is a tensor's quantization as the file has it.
type Quant struct {
	Scales     []float32
	ZeroPoints []int64
	Axis       int
}

// Tensor is one tensor of a subgraph. A tensor with a buffer that is not empty
// is constant.
type Tensor struct {
	Name     string
	Shape    []int
	Type     Type
	Buffer   int
	Quant    Quant
	Variable bool
	Sparse   bool
}

// Operator is one step of a subgraph. Inputs may be −1: optional, absent.
type Operator struct {
	Code    int // into Model.Codes
	Inputs  []int
	Outputs []int
}

// Buffer is constant data: a slice of the parsed file and where it stands.
type Buffer struct {
	Offset int
	Data   []byte
}

// Entry is one named metadata entry.
type Entry struct {
	Name   string
	Buffer int
}

// Model is a parsed .tflite file: its first subgraph, the only one a
// classifier runs by itself. It refers to the bytes it was parsed from, which
// must not be changed; it is safe for concurrent use.
type Model struct {
	Description string
	Codes       []OpCode
	Tensors     []Tensor
	Operators   []Operator
	Inputs      []int
	Outputs     []int
	Buffers     []Buffer
	Entries     []Entry
	Subgraphs   int

	raw []byte
}

// CustomOps are the distinct names of the custom operators, in file order. A
// runtime without them refuses the model.
func (m *Model) CustomOps() []string {
	var names []string
	seen := map[string]bool{}
	for _, c := range m.Codes {
		if c.Builtin == Custom && !seen[c.Custom] {
			seen[c.Custom] = true
			names = append(names, c.Custom)
		}
	}
	return names
}
