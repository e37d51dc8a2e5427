package modelfile

// optionFields describes, by number of the BuiltinOptions union, the fields of
// each options table that the C library may read: b one byte, i four, l eight
// (absent or inside the table), v a vector of four-byte elements, s a string;
// p and q are four bytes whose value must be positive, because kernels divide
// by it, and which is 0 or 1 where absent.
// Numbers beyond the list are unknown to TFLite 2.9, which does not read them.
var optionFields = [...]string{
	1:   "bppbqqb",  // Conv2D
	2:   "bppibqq",  // DepthwiseConv2D
	3:   "ivv",      // ConcatEmbeddings
	4:   "b",        // LSHProjection
	5:   "bppppb",   // Pool2D
	6:   "ibb",      // SVDF
	7:   "bb",       // RNN
	8:   "bbbbb",    // FullyConnected
	9:   "i",        // Softmax
	10:  "ib",       // Concatenation
	11:  "bb",       // Add
	12:  "b",        // L2Norm
	13:  "iiii",     // LocalResponseNormalization
	14:  "biibb",    // LSTM
	15:  "iibb",     // ResizeBilinear
	16:  "i",        // Call
	17:  "v",        // Reshape
	18:  "iib",      // SkipGram
	19:  "i",        // SpaceToDepth
	20:  "b",        // EmbeddingLookupSparse
	21:  "b",        // Mul
	23:  "ii",       // Gather
	27:  "b",        // Reducer
	28:  "bb",       // Sub
	29:  "b",        // Div
	30:  "v",        // Squeeze
	31:  "bbb",      // SequenceRNN
	32:  "iiiiib",   // StridedSlice
	35:  "i",        // Split
	37:  "bb",       // Cast
	40:  "b",        // ArgMax
	49:  "bppbb",    // TransposeConv
	50:  "b",        // SparseToDense
	55:  "b",        // Shape
	57:  "b",        // ArgMin
	58:  "iiib",     // FakeQuant
	59:  "ii",       // Pack
	61:  "i",        // OneHot
	64:  "ii",       // Unpack
	69:  "biibbb",   // BidirectionalSequenceLSTM
	70:  "bbbb",     // BidirectionalSequenceRNN
	71:  "biibbb",   // UnidirectionalSequenceLSTM
	74:  "bb",       // ResizeNearestNeighbor
	75:  "i",        // LeakyRelu
	77:  "b",        // MirrorPad
	79:  "i",        // SplitV
	80:  "b",        // Unique
	87:  "ii",       // ReverseSequence
	92:  "ii",       // If
	93:  "ii",       // While
	94:  "i",        // DepthToSpace
	101: "bbb",      // BatchMatMul
	102: "bb",       // Cumsum
	103: "i",        // CallOnce
	106: "bpppbqqq", // Conv3D
	107: "ibb",      // Hashtable
	111: "ss",       // VarHandle
	114: "ll",       // Random
	115: "v",        // Bucketize
	116: "b",        // Gelu
}

// readOptions checks the builtin options of an operator.
func readOptions(op table) {
	kind := int(op.byte(opOptionsType, 0))
	t, ok := op.sub(opOptions, "builtin options")
	if !ok || kind >= len(optionFields) {
		return
	}
	for slot, f := range optionFields[kind] {
		switch f {
		case 'b':
			t.byte(slot, 0)
		case 'i':
			t.i32(slot, 0)
		case 'p', 'q':
			if v := t.i32(slot, int(f-'p')); t.r.err == nil && v < 1 {
				t.r.fail(ErrCorrupt, "stride, dilation or window size is %d", v)
			}
		case 'l':
			t.u64(slot)
		case 'v':
			t.vec(slot, 4, "option vector")
		case 's':
			t.str(slot, "option string")
		}
	}
}
