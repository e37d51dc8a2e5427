package delta

import (
	"bytes"
	"slices"

	"github.com/droverhq/drover/infer/modelfile"
)

// region is a stretch of the target that is treated in one way.
type region struct {
	at, size int
	width    int  // of an element
	centre   byte // around which the elements of one byte lie
	tensor   bool
	from     int // its counterpart in the base; −1: none
}

// regions cuts the target into its tensors and what stands between them.
func regions(base, target []byte) ([]region, bool) {
	t, err := modelfile.Parse(target)
	if err != nil {
		return nil, false
	}
	var b *modelfile.Model
	if m, err := modelfile.Parse(base); err == nil {
		b = m
	}
	var list []region
	seen := map[int]bool{}
	for i, k := range t.Tensors {
		data := t.Buffers[k.Buffer].Data
		if k.Buffer == 0 || len(data) == 0 || seen[k.Buffer] {
			continue
		}
		seen[k.Buffer] = true
		list = append(list, region{
			at: t.Buffers[k.Buffer].Offset, size: len(data), width: widthOf(k.Type, len(data)), tensor: true,
			centre: centreOf(k), from: counterpart(b, t, i),
		})
	}
	slices.SortFunc(list, func(x, y region) int { return x.at - y.at })
	return withGaps(list, len(target)), true
}

// withGaps adds what stands between tensors; of tensors that overlap it drops
// the later one. A gap's counterpart is what follows that of its neighbour.
func withGaps(tensors []region, size int) []region {
	var out []region
	at, from := 0, 0
	gap := func(to int, next region) {
		if to == at {
			return
		}
		g := region{at: at, size: to - at, width: 1, from: from}
		if from < 0 && next.from >= 0 {
			g.from = max(-1, next.from-g.size)
		}
		out = append(out, g)
	}
	for _, t := range tensors {
		if t.at < at {
			continue
		}
		gap(t.at, t)
		out = append(out, t)
		at, from = t.at+t.size, -1
		if t.from >= 0 {
			from = t.from + t.size
		}
	}
	gap(size, region{from: -1})
	return out
}

// counterpart is where in the base the data of the tensor with the same name
// stands, else that of the same number; −1 when its type or size differs.
func counterpart(base, target *modelfile.Model, index int) int {
	if base == nil {
		return -1
	}
	t := target.Tensors[index]
	size := len(target.Buffers[t.Buffer].Data)
	fits := func(k modelfile.Tensor) bool {
		return k.Buffer != 0 && k.Type == t.Type && len(base.Buffers[k.Buffer].Data) == size
	}
	named := slices.IndexFunc(base.Tensors, func(k modelfile.Tensor) bool { return k.Name == t.Name && fits(k) })
	if named < 0 && index < len(base.Tensors) && fits(base.Tensors[index]) {
		named = index
	}
	if named < 0 {
		return -1
	}
	return base.Buffers[base.Tensors[named].Buffer].Offset
}

func widthOf(t modelfile.Type, size int) int {
	w := t.Size()
	if w != 2 && w != 4 && w != 8 || size%w != 0 {
		return 1
	}
	return w
}

func centreOf(t modelfile.Tensor) byte {
	if len(t.Quant.ZeroPoints) == 0 {
		return 0
	}
	return byte(t.Quant.ZeroPoints[0])
}

// planned chooses an operation for each region: the one that costs least by
// itself.
func planned(p *packer, base, target []byte, list []region) []op {
	var ops []op
	for _, r := range list {
		data := target[r.at:][:r.size]
		if r.from >= 0 && r.from+r.size <= len(base) && bytes.Equal(base[r.from:][:r.size], data) {
			ops = append(ops, op{kind: opCopy, size: r.size, from: r.from, width: 1})
			continue
		}
		best := op{kind: opLZ, size: r.size, width: 1}
		if r.tensor {
			cost := len(pack(p.plain, data))
			for _, o := range candidates(r, len(base)) {
				if c := costOf(o, data, base); c < cost {
					best, cost = o, c
				}
			}
		}
		ops = append(ops, best)
	}
	return merged(ops)
}

// levelled is a plan with all new bytes in the model "level": it has more to
// learn than any one tensor pays for, and is worth it to many.
func levelled(ops []op, list []region) []op {
	centres := map[int]byte{}
	for _, r := range list {
		centres[r.at] = r.centre
	}
	out := slices.Clone(ops)
	at := 0
	for i, o := range out {
		if o.kind == opNew && o.width == 1 && !o.level {
			out[i].level, out[i].centre = true, centres[at]
		}
		at += o.size
	}
	return out
}

func candidates(r region, base int) []op {
	fresh := op{kind: opNew, size: r.size, width: r.width}
	list := []op{fresh}
	if r.width == 1 {
		fresh.level, fresh.centre = true, r.centre
		list = append(list, fresh)
	}
	if r.from >= 0 && r.from+r.size <= base {
		list = append(list, op{kind: opSub, size: r.size, from: r.from, width: r.width})
	}
	return list
}

// costOf is the bytes the elements of an operation take.
func costOf(o op, data, base []byte) int {
	s := stream{c: newEncoder()}
	s.encode(o, data, base)
	return len(s.c.finish())
}

// encode writes the elements of an operation, leaving data alone.
func (s *stream) encode(o op, data, base []byte) {
	var buf [window]byte
	for at := 0; at < o.size; at += window {
		n := min(window, o.size-at)
		var from []byte
		if o.usesBase() {
			from = base[o.from+at:][:n]
		}
		copy(buf[:n], data[at:])
		s.elements(o, buf[:n], from)
	}
}

// short is a copy that costs less as differences of zero, between others.
const short = 512

// merged joins neighbours that make one operation.
func merged(ops []op) []op {
	for i := 1; i+1 < len(ops); i++ {
		o := &ops[i]
		if before, after := ops[i-1], ops[i+1]; o.kind == opCopy && o.size <= short &&
			before.kind == opSub && before.width == 1 && after.kind == opSub && after.width == 1 &&
			before.from+before.size == o.from && o.from+o.size == after.from {
			o.kind = opSub
		}
	}
	var out []op
	for _, o := range ops {
		if n := len(out); n > 0 && joins(out[n-1], o) {
			out[n-1].size += o.size
			continue
		}
		out = append(out, o)
	}
	return out
}

func joins(a, b op) bool {
	if a.kind != b.kind || a.width != b.width || a.level != b.level || a.centre != b.centre {
		return false
	}
	return !a.usesBase() || a.from+a.size == b.from
}
