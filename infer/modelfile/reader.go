package modelfile

import (
	"encoding/binary"
	"fmt"
	"math"
)

// reader follows FlatBuffer offsets through b with every step checked. The
// first error sticks and makes all later reads return zero values, so that
// code can read a whole table and ask once.
type reader struct {
	b    []byte
	err  error
	work int // tables and elements read so far
}

func (r *reader) fail(kind error, format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", kind, fmt.Sprintf(format, args...))
	}
}

// spend counts work: aliased offsets let a small file describe a huge model.
func (r *reader) spend(n int) bool {
	if r.err != nil {
		return false
	}
	if n > maxWork-r.work {
		r.fail(ErrLimit, "more than %d tables and elements", maxWork)
		return false
	}
	r.work += n
	return true
}

// need reports whether n bytes at pos are in the file.
func (r *reader) need(pos, n int, what string) bool {
	if r.err != nil {
		return false
	}
	if pos < 0 || n < 0 {
		r.fail(ErrCorrupt, "%s at offset %d", what, pos)
		return false
	}
	if pos > len(r.b) || n > len(r.b)-pos {
		r.fail(ErrTruncated, "%s needs bytes %d to %d of %d", what, pos, pos+n, len(r.b))
		return false
	}
	return true
}

func (r *reader) u16(pos int) int { return int(binary.LittleEndian.Uint16(r.b[pos:])) }
func (r *reader) u32(pos int) int { return int(binary.LittleEndian.Uint32(r.b[pos:])) }
func (r *reader) i32(pos int) int { return int(int32(binary.LittleEndian.Uint32(r.b[pos:]))) }

// follow returns the target of the unsigned offset that stands at pos; need
// has been asked for its four bytes.
func (r *reader) follow(pos int, what string) (int, bool) {
	off := r.u32(pos)
	if off == 0 || off > math.MaxInt32 {
		r.fail(ErrCorrupt, "%s has offset %d", what, off)
		return 0, false
	}
	to := pos + off
	if to%4 != 0 {
		r.fail(ErrCorrupt, "%s at odd offset %d", what, to)
		return 0, false
	}
	return to, r.need(to, 4, what)
}

// table is one FlatBuffer table: its vtable says where in its inline part each
// slot stands. The zero table (r nil) has no slots.
type table struct {
	r         *reader
	what      string
	pos, size int // inline part
	vpos, n   int // vtable entries and their number
}

// table checks the table at pos and its vtable.
func (r *reader) table(pos int, what string) table {
	if !r.spend(1) || !r.need(pos, 4, what) {
		return table{}
	}
	v := pos - r.i32(pos)
	if v%2 != 0 {
		r.fail(ErrCorrupt, "vtable of %s at odd offset %d", what, v)
		return table{}
	}
	if !r.need(v, 4, "vtable of "+what) {
		return table{}
	}
	vsize, size := r.u16(v), r.u16(v+2)
	if vsize < 4 || vsize%2 != 0 || size < 4 {
		r.fail(ErrCorrupt, "%s has a vtable of %d bytes and %d bytes of fields", what, vsize, size)
		return table{}
	}
	if !r.need(v, vsize, "vtable of "+what) || !r.need(pos, size, what) {
		return table{}
	}
	return table{r: r, what: what, pos: pos, size: size, vpos: v + 4, n: (vsize - 4) / 2}
}

// at returns where the field of the slot stands, if it is present.
func (t table) at(slot, width int) (int, bool) {
	if t.r == nil || t.r.err != nil || slot >= t.n {
		return 0, false
	}
	off := t.r.u16(t.vpos + 2*slot)
	if off == 0 {
		return 0, false
	}
	if off < 4 || off+width > t.size || (t.pos+off)%width != 0 {
		t.r.fail(ErrCorrupt, "field %d of %s at offset %d of %d", slot, t.what, off, t.size)
		return 0, false
	}
	return t.pos + off, true
}

func (t table) byte(slot int, def byte) byte {
	if p, ok := t.at(slot, 1); ok {
		return t.r.b[p]
	}
	return def
}

func (t table) u32(slot, def int) int {
	if p, ok := t.at(slot, 4); ok {
		return t.r.u32(p)
	}
	return def
}

func (t table) i32(slot, def int) int {
	if p, ok := t.at(slot, 4); ok {
		return t.r.i32(p)
	}
	return def
}

func (t table) u64(slot int) uint64 {
	if p, ok := t.at(slot, 8); ok {
		return binary.LittleEndian.Uint64(t.r.b[p:])
	}
	return 0
}

// sub returns the table the slot points to.
func (t table) sub(slot int, what string) (table, bool) {
	p, ok := t.at(slot, 4)
	if !ok {
		return table{}, false
	}
	to, ok := t.r.follow(p, what)
	if !ok {
		return table{}, false
	}
	s := t.r.table(to, what)
	return s, s.r != nil
}

// vector is n elements of one width at pos.
type vector struct {
	r      *reader
	what   string
	pos, n int
	width  int
}

// vec returns the vector the slot points to; the second value tells whether
// the field is there at all.
func (t table) vec(slot, width int, what string) (vector, bool) {
	p, ok := t.at(slot, 4)
	if !ok {
		return vector{}, false
	}
	to, ok := t.r.follow(p, what)
	if !ok {
		return vector{}, false
	}
	n := t.r.u32(to)
	if n > math.MaxInt32/width {
		t.r.fail(ErrCorrupt, "%s claims %d elements", what, n)
		return vector{}, false
	}
	if !t.r.need(to+4, n*width, what) {
		return vector{}, false
	}
	if n > 0 && (to+4)%width != 0 {
		t.r.fail(ErrCorrupt, "%s of %d-byte elements at odd offset %d", what, width, to+4)
		return vector{}, false
	}
	return vector{r: t.r, what: what, pos: to + 4, n: n, width: width}, true
}

// bytes returns the vector's bytes as a slice of the file.
func (v vector) bytes() []byte {
	if v.r == nil || v.r.err != nil {
		return nil
	}
	end := v.pos + v.n*v.width
	return v.r.b[v.pos:end:end]
}

// table returns element i of a vector of tables.
func (v vector) table(i int) table {
	if v.r.err != nil {
		return table{}
	}
	to, ok := v.r.follow(v.pos+4*i, v.what)
	if !ok {
		return table{}
	}
	return v.r.table(to, v.what)
}

func (v vector) ints() []int {
	if v.n == 0 || !v.r.spend(v.n) {
		return nil
	}
	out := make([]int, v.n)
	for i := range out {
		out[i] = v.r.i32(v.pos + 4*i)
	}
	return out
}

func (v vector) floats() []float32 {
	if v.n == 0 || !v.r.spend(v.n) {
		return nil
	}
	out := make([]float32, v.n)
	for i := range out {
		out[i] = math.Float32frombits(uint32(v.r.u32(v.pos + 4*i)))
	}
	return out
}

func (v vector) int64s() []int64 {
	if v.n == 0 || !v.r.spend(v.n) {
		return nil
	}
	out := make([]int64, v.n)
	for i := range out {
		out[i] = int64(binary.LittleEndian.Uint64(v.r.b[v.pos+8*i:]))
	}
	return out
}

// str returns the string the slot points to; "" if absent. The C library uses
// strings up to their NUL, so the NUL must be in the file.
func (t table) str(slot int, what string) string {
	v, ok := t.vec(slot, 1, what)
	if !ok {
		return ""
	}
	if v.n > MaxNameBytes {
		t.r.fail(ErrLimit, "%s has %d bytes, allowed %d", what, v.n, MaxNameBytes)
		return ""
	}
	if !t.r.need(v.pos+v.n, 1, what) || !t.r.spend(1+v.n/16) {
		return ""
	}
	if t.r.b[v.pos+v.n] != 0 {
		t.r.fail(ErrCorrupt, "%s is not ended by NUL", what)
		return ""
	}
	return string(v.bytes())
}

// has reports whether the slot is present, without looking where it points.
func (t table) has(slot int) bool {
	return t.r != nil && t.r.err == nil && slot < t.n && t.r.u16(t.vpos+2*slot) != 0
}
