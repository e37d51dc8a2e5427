package delta

import "math/bits"

// elements are the models of what stands in tensors. They learn over a whole
// delta. The zero value is ready.
type elements struct {
	// differences of one byte
	zero, sign, one [20]prob
	rest            [20][128]prob
	activity        int // mean magnitude, of 1<<12
	// differences of more bytes: place, something higher was there
	wide [8][2][256]prob
	// new bytes
	level [32][256]prob
	mean  int // distance from the centre, of 1<<8
	plain [8][256]prob
}

// sub codes the difference of one byte.
func (m *elements) sub(c *coder, diff byte) byte {
	q := min(bits.Len(uint(m.activity)), len(m.zero)-1)
	mag := 0
	if c.bit(&m.zero[q], isZero(diff)) == 0 {
		neg := c.bit(&m.sign[q], int(diff>>7))
		d := int(int8(diff))
		if d < 0 {
			d = -d
		}
		mag = 1
		if c.bit(&m.one[q], b2i(d == 1)) == 0 {
			mag = 2 + c.tree(m.rest[q][:], 7, d-2)
		}
		diff = byte(mag)
		if neg != 0 {
			diff = -diff
		}
	} else {
		diff = 0
	}
	m.activity += (mag<<12 - m.activity) >> 5
	return diff
}

// subWide codes the difference of an element of w bytes, as a number.
func (m *elements) subWide(c *coder, w int, diff uint64) uint64 {
	shift := 64 - 8*w
	d := int64(diff<<shift) >> shift
	z := uint64(d<<1) ^ uint64(d>>63)
	if w < 8 {
		z &= 1<<(8*w) - 1
	}
	var out uint64
	for i := w - 1; i >= 0; i-- {
		higher := b2i(out != 0)
		out = out<<8 | uint64(c.tree(m.wide[i][higher][:], 8, int(z>>(8*i)&255)))
	}
	return out>>1 ^ -(out & 1)
}

// fresh codes a new byte at a place of its element.
func (m *elements) fresh(c *coder, place int, v byte) byte {
	return byte(c.tree(m.plain[place][:], 8, int(v)))
}

// near codes a new byte in the context of how far the last ones were from the
// centre.
func (m *elements) near(c *coder, centre, v byte) byte {
	q := 0
	if n := bits.Len(uint(m.mean)); n > 1 {
		q = min(2*n+m.mean>>(n-2)&1, len(m.level)-1) // two steps an octave
	}
	v = byte(c.tree(m.level[q][:], 8, int(v)))
	d := int(int8(v - centre))
	if d < 0 {
		d = -d
	}
	m.mean += (d<<8 - m.mean) >> 5
	return v
}

func isZero(b byte) int { return b2i(b == 0) }

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
