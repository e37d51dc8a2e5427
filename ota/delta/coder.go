package delta

import "io"

// prob is an adaptive probability of a bit being 1: 22 bits of probability,
// 10 bits of how often it was used. The zero value stands for one half.
type prob uint32

const probLimit = 1023

// bits22 is the probability, of 1<<22.
func (p prob) bits22() uint32 { return uint32(p)>>10 ^ 1<<21 }

// update moves the probability to the bit seen: fast at first, then slowly.
func (p *prob) update(y int, rates *[probLimit + 1]uint32) {
	n := uint32(*p) & probLimit
	v := p.bits22()
	rate := uint64(rates[n])
	if y != 0 {
		v += uint32(uint64(1<<22-v) * rate >> 16)
	} else {
		v -= uint32(uint64(v) * rate >> 16)
	}
	v = min(v, 1<<22-1)
	if n < probLimit {
		n++
	}
	*p = prob((v^1<<21)<<10 | n)
}

// fill sets rates[n] to 65536/(n+1.5).
func fill(rates *[probLimit + 1]uint32) {
	for n := range rates {
		rates[n] = uint32(131072 / (2*n + 3))
	}
}

// coder is the arithmetic coder in either direction, so that what is written
// and what is read cannot differ. It is an encoder when in is nil.
type coder struct {
	x1, x2 uint64
	rates  [probLimit + 1]uint32
	x      uint64 // decoder: where in the interval the stream stands
	in     io.ByteReader
	out    []byte
	err    error // of in, but io.EOF
}

func newEncoder() *coder {
	c := &coder{x2: 1<<64 - 1}
	fill(&c.rates)
	return c
}

func newDecoder(in io.ByteReader) *coder {
	c := &coder{x2: 1<<64 - 1, in: in}
	fill(&c.rates)
	for range 8 {
		c.x = c.x<<8 | uint64(c.next())
	}
	return c
}

// next reads a byte; zeros behind the end.
func (c *coder) next() byte {
	b, err := c.in.ReadByte()
	if err != nil {
		if err != io.EOF && c.err == nil {
			c.err = err
		}
		return 0
	}
	return b
}

// bit codes one bit: an encoder writes y, a decoder ignores it. It returns the
// bit.
func (c *coder) bit(p *prob, y int) int {
	mid := c.x1 + (c.x2-c.x1)>>16*uint64(p.bits22()>>6|1)
	if c.in != nil {
		y = 0
		if c.x <= mid {
			y = 1
		}
	}
	if y != 0 {
		c.x2 = mid
	} else {
		c.x1 = mid + 1
	}
	p.update(y, &c.rates)
	for (c.x1^c.x2)>>56 == 0 {
		if c.in != nil {
			c.x = c.x<<8 | uint64(c.next())
		} else {
			c.out = append(c.out, byte(c.x1>>56))
		}
		c.x1 <<= 8
		c.x2 = c.x2<<8 | 255
	}
	return y
}

// finish returns the encoded stream: the shortest that lies in the interval
// when zeros follow.
func (c *coder) finish() []byte {
	for drop := 56; drop >= 0; drop -= 8 {
		mask := uint64(1)<<drop - 1
		v := (c.x1 + mask) &^ mask
		if v >= c.x1 && v <= c.x2 {
			for shift := 56; shift >= drop; shift -= 8 {
				c.out = append(c.out, byte(v>>shift))
			}
			break
		}
	}
	for len(c.out) > 0 && c.out[len(c.out)-1] == 0 {
		c.out = c.out[:len(c.out)-1]
	}
	return c.out
}

// tree codes the low n bits of v from the highest, each in the context of those
// before it. It has room for 1<<n probabilities.
func (c *coder) tree(p []prob, n int, v int) int {
	node := 1
	for i := n - 1; i >= 0; i-- {
		node = node<<1 | c.bit(&p[node], v>>i&1)
	}
	return node - 1<<n
}

// number codes unsigned integers of up to 40 bits.
type number struct {
	size [64]prob
	bits [64][64]prob
}

const maxNumber = 1<<40 - 1

func (m *number) code(c *coder, v uint64) uint64 {
	n := 0
	for v>>n != 0 {
		n++
	}
	n = c.tree(m.size[:], 6, n)
	if n > 40 {
		return maxNumber // nothing writes that: larger than any length
	}
	out := uint64(min(n, 1))
	for i := n - 2; i >= 0; i-- {
		out = out<<1 | uint64(c.bit(&m.bits[n][i], int(v>>i&1)))
	}
	return out
}
