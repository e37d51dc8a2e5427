package delta

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"
)

// window is how much of the target Apply makes at a time.
const window = 64 << 10

// header is what stands before the streams.
type header struct {
	base   [baseSum]byte
	goal   [goalSum]byte
	sizes  [4]int64 // base, target, stream A, stream B
	length int64    // of the header itself
}

const maxHeader = len(magic) + 1 + baseSum + goalSum + 4*binary.MaxVarintLen64

func readHeader(delta io.ReaderAt, size int64) (header, error) {
	var h header
	buf := make([]byte, min(int64(maxHeader), size))
	if n, err := delta.ReadAt(buf, 0); n < len(buf) {
		return h, fmt.Errorf("delta: read header: %w", err)
	}
	r := bytes.NewReader(buf)
	fixed := make([]byte, len(magic)+1+baseSum+goalSum)
	if _, err := io.ReadFull(r, fixed); err != nil || string(fixed[:len(magic)]) != magic {
		return h, fmt.Errorf("%w: %d bytes without its magic", ErrFormat, size)
	}
	if v := fixed[len(magic)]; v != version {
		return h, fmt.Errorf("%w: version %d, this program reads %d", ErrFormat, v, version)
	}
	copy(h.base[:], fixed[len(magic)+1:])
	copy(h.goal[:], fixed[len(magic)+1+baseSum:])
	for i := range h.sizes {
		v, err := binary.ReadUvarint(r)
		if err != nil || v > MaxSize {
			return h, fmt.Errorf("%w: size %d of %d bytes", ErrFormat, i, v)
		}
		h.sizes[i] = int64(v)
	}
	h.length = int64(len(buf) - r.Len())
	if h.length+h.sizes[2]+h.sizes[3] != size {
		return h, fmt.Errorf("%w: %d bytes where %d should be", ErrFormat, size, h.length+h.sizes[2]+h.sizes[3])
	}
	return h, nil
}

// TargetSize is how many bytes Apply will write, by a header nobody has
// verified.
func TargetSize(delta io.ReaderAt, size int64) (int64, error) {
	h, err := readHeader(delta, size)
	return h.sizes[1], err
}

// Apply writes the target that a delta of size bytes makes of base. Only when
// it returns nil was what it wrote the target. It writes at most TargetSize
// bytes, in pieces of up to 64 KiB, and needs up to 8 MiB beside base. Errors
// are ErrFormat, ErrBase, ErrTarget, or those of delta and w.
func Apply(base []byte, delta io.ReaderAt, size int64, w io.Writer) error {
	h, err := readHeader(delta, size)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(base)
	if int64(len(base)) != h.sizes[0] || !bytes.Equal(sum[:baseSum], h.base[:]) {
		return fmt.Errorf("%w: %d bytes, wanted %d of digest %x…", ErrBase, len(base), h.sizes[0], h.base)
	}
	a := io.NewSectionReader(delta, h.length, h.sizes[2])
	b := io.NewSectionReader(delta, h.length+h.sizes[2], h.sizes[3])
	f := &frames{in: bufio.NewReaderSize(b, window), dict: dictOf(base)}
	defer f.close()
	t := &applier{s: stream{c: newDecoder(bufio.NewReaderSize(a, window))}, f: f, base: base}
	goal := sha256.New()
	t.w = io.MultiWriter(w, goal)
	for left := int(h.sizes[1]); left > 0; {
		n, err := t.step(left)
		if err != nil {
			return err
		}
		left -= n
	}
	if got := goal.Sum(nil); !bytes.Equal(got[:goalSum], h.goal[:]) {
		return fmt.Errorf("%w: digest %x…, wanted %x…", ErrTarget, got[:goalSum], h.goal)
	}
	return nil
}

type applier struct {
	s    stream
	f    *frames
	base []byte
	w    io.Writer
	buf  [window]byte
}

// step does one operation and returns its size.
func (t *applier) step(left int) (int, error) {
	o, err := t.s.head(op{}, left, len(t.base))
	if err != nil {
		return 0, err
	}
	for at := 0; at < o.size; {
		n := min(window, o.size-at)
		var from []byte
		if o.usesBase() {
			from = t.base[o.from+at:][:n]
		}
		out := t.buf[:n]
		switch o.kind {
		case opCopy:
			out = from
		case opLZ:
			if _, err := io.ReadFull(t.f, out); err != nil {
				return 0, err
			}
		default:
			t.s.elements(o, out, from)
		}
		if t.s.c.err != nil {
			return 0, fmt.Errorf("delta: read: %w", t.s.c.err)
		}
		if _, err := t.w.Write(out); err != nil {
			return 0, err
		}
		at += n
	}
	return o.size, nil
}
