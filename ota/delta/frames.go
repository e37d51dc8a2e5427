package delta

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// maxDict bounds the base that zstd may refer to: every frame looks through all
// of it.
const maxDict = 64 << 20

// dictOf is the dictionary that a base serves as; nil where it cannot.
func dictOf(base []byte) []byte {
	if len(base) < 16 || len(base) > maxDict {
		return nil
	}
	return base
}

// packer makes frames. It keeps its encoders, which are costly to begin with.
type packer struct {
	plain, based *zstd.Encoder // based refers to the base; nil where it cannot
}

func newPacker(base []byte) (*packer, error) {
	p := &packer{}
	var err error
	if p.plain, err = encoder(nil); err != nil {
		return nil, err
	}
	if dict := dictOf(base); dict != nil {
		p.based, err = encoder(dict)
	}
	return p, err
}

func encoder(dict []byte) (*zstd.Encoder, error) {
	opts := []zstd.EOption{
		zstd.WithEncoderLevel(zstd.SpeedBestCompression), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true),
		zstd.WithWindowSize(1 << bits.Len(uint(len(dict)+maxFrame))), zstd.WithEncoderConcurrency(1),
	}
	if dict != nil {
		opts = append(opts, zstd.WithEncoderDictRaw(dictID, dict))
	}
	e, err := zstd.NewWriter(nil, opts...)
	if err != nil {
		return nil, fmt.Errorf("delta: zstd: %w", err)
	}
	return e, nil
}

func (p *packer) close() {
	p.plain.Close()
	if p.based != nil {
		p.based.Close()
	}
}

// pack makes frames of content.
func pack(e *zstd.Encoder, content []byte) []byte {
	var out, frame []byte
	for at := 0; at < len(content); at += maxFrame {
		part := content[at:min(len(content), at+maxFrame)]
		frame = e.EncodeAll(part, frame[:0])
		out = binary.AppendUvarint(out, uint64(len(part)))
		out = binary.AppendUvarint(out, uint64(len(frame)))
		out = append(out, frame...)
	}
	return out
}

// frames reads stream B.
type frames struct {
	in    *bufio.Reader
	dict  []byte
	d     *zstd.Decoder
	raw   []byte // one frame as it stands in the stream
	plain []byte
	left  []byte // of plain
}

// Read fills p or fails.
func (f *frames) Read(p []byte) (int, error) {
	if len(f.left) == 0 {
		if err := f.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, f.left)
	f.left = f.left[n:]
	return n, nil
}

func (f *frames) next() error {
	size, err := binary.ReadUvarint(f.in)
	if err != nil {
		return fmt.Errorf("%w: no frame: %w", ErrFormat, err)
	}
	length, err := binary.ReadUvarint(f.in)
	if err != nil || size == 0 || size > maxFrame || length > maxFrame+1024 {
		return errors.Join(fmt.Errorf("%w: frame of %d bytes for %d", ErrFormat, length, size), err)
	}
	if f.d == nil {
		if err := f.open(); err != nil {
			return err
		}
	}
	f.raw = append(f.raw[:0], make([]byte, length)...)
	if _, err := io.ReadFull(f.in, f.raw); err != nil {
		return fmt.Errorf("%w: frame is cut off: %w", ErrFormat, err)
	}
	if cap(f.plain) < int(size) {
		f.plain = make([]byte, 0, size)
	}
	var h zstd.Header
	if err := h.Decode(f.raw); err != nil || h.Skippable || !h.HasFCS || h.FrameContentSize != size {
		return errors.Join(fmt.Errorf("%w: zstd frame does not hold %d bytes", ErrFormat, size), err)
	}
	// The capacity bounds what a lying frame may write.
	out, err := f.d.DecodeAll(f.raw, f.plain[:0:size])
	if err != nil || len(out) != int(size) {
		return errors.Join(fmt.Errorf("%w: zstd frame gives %d bytes, not %d", ErrFormat, len(out), size), err)
	}
	f.left = out
	return nil
}

func (f *frames) open() error {
	opts := []zstd.DOption{
		zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxMemory(maxFrame),
		zstd.WithDecoderMaxWindow(maxFrame), zstd.WithDecodeAllCapLimit(true),
	}
	if f.dict != nil {
		opts = append(opts, zstd.WithDecoderDictRaw(dictID, f.dict))
	}
	d, err := zstd.NewReader(nil, opts...)
	if err != nil {
		return fmt.Errorf("delta: zstd: %w", err)
	}
	f.d = d
	return nil
}

func (f *frames) close() {
	if f.d != nil {
		f.d.Close()
	}
}
