package delta

import (
	"fmt"
)

type kind int

const (
	opCopy kind = iota
	opSub
	opNew
	opLZ
)

// op gives size bytes of the target.
type op struct {
	kind   kind
	size   int
	from   int  // copy, sub: offset in the base
	width  int  // sub, new: bytes of an element
	level  bool // new of width 1: in the context of the distance from the centre
	centre byte
}

// usesBase says whether from counts.
func (o *op) usesBase() bool { return o.kind == opCopy || o.kind == opSub }

// stream is stream A: operations and elements, written or read.
type stream struct {
	c    *coder
	el   elements
	last int // end of the base bytes used last

	kinds  [4][4]prob // after the kind before
	before kind
	sizes  [4]number
	froms  number
	widths [2][4]prob
	levels prob
	centre [256]prob
}

// head codes an operation without its elements. limit is what may still come,
// base the size of the base; a reader refuses what does not fit.
func (s *stream) head(o op, limit, base int) (op, error) {
	o.kind = kind(s.c.tree(s.kinds[s.before][:], 2, int(o.kind)))
	s.before = o.kind
	size := s.sizes[o.kind].code(s.c, uint64(o.size))
	if size == 0 || size > uint64(limit) {
		return o, fmt.Errorf("%w: operation of %d bytes where %d are missing", ErrFormat, size, limit)
	}
	o.size = int(size)
	if o.usesBase() {
		d := int64(o.from - s.last)
		z := s.froms.code(s.c, uint64(d<<1)^uint64(d>>63))
		from := int64(s.last) + int64(z>>1^-(z&1))
		if from < 0 || from > int64(base-o.size) {
			return o, fmt.Errorf("%w: %d bytes at %d of a base of %d", ErrFormat, o.size, from, base)
		}
		o.from = int(from)
		s.last = o.from + o.size
	}
	if o.kind == opSub || o.kind == opNew {
		o.width = 1 << s.c.tree(s.widths[o.kind-opSub][:], 2, log2(o.width))
		if o.size%o.width != 0 {
			return o, fmt.Errorf("%w: %d bytes of elements of %d", ErrFormat, o.size, o.width)
		}
	}
	if o.kind == opNew && o.width == 1 {
		if o.level = s.c.bit(&s.levels, b2i(o.level)) != 0; o.level {
			o.centre = byte(s.c.tree(s.centre[:], 8, int(o.centre)))
		}
	}
	return o, nil
}

// elements codes whole elements of sub and new: dst is written by a reader and
// read by a writer; base is as long as dst, for sub.
func (s *stream) elements(o op, dst, base []byte) {
	switch {
	case o.kind == opSub && o.width == 1:
		for i, b := range base {
			dst[i] = b + s.el.sub(s.c, dst[i]-b)
		}
	case o.kind == opSub:
		for i := 0; i < len(dst); i += o.width {
			b := get(base[i:], o.width)
			put(dst[i:], o.width, b+s.el.subWide(s.c, o.width, get(dst[i:], o.width)-b))
		}
	case o.level:
		for i := range dst {
			dst[i] = s.el.near(s.c, o.centre, dst[i])
		}
	default:
		for i := range dst {
			dst[i] = s.el.fresh(s.c, i&(o.width-1), dst[i])
		}
	}
}

func log2(w int) int {
	n := 0
	for w > 1 {
		w >>= 1
		n++
	}
	return n
}

func get(b []byte, w int) uint64 {
	var v uint64
	for i := w - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

func put(b []byte, w int, v uint64) {
	for i := range w {
		b[i] = byte(v >> (8 * i))
	}
}
