package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/droverhq/drover/camera"
)

// IDX is the format of the MNIST files: a magic number (two zero bytes, the
// element type, the number of dimensions), each dimension as 4 bytes big
// endian, then the elements, the last dimension running fastest. drover reads
// unsigned bytes: pictures [n, height, width] and labels [n].
// Source: the description on the MNIST database's page.
const (
	idxPictures = 0x00000803
	idxLabels   = 0x00000801
	maxIDXBytes = 2 << 30
)

// FashionClasses are the ten classes of Fashion-MNIST by index.
func FashionClasses() []string {
	return []string{"T-shirt", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"}
}

// OpenIDXDir reads one part ("train" or "t10k") of a folder laid out as MNIST
// and Debian's dataset-fashion-mnist are: <part>-images-idx3-ubyte and
// <part>-labels-idx1-ubyte, with or without .gz. classes as in OpenIDX.
func OpenIDXDir(dir, part string, classes []string) (*Set, error) {
	find := func(name string) (string, error) {
		for _, p := range []string{filepath.Join(dir, name+".gz"), filepath.Join(dir, name)} {
			if _, err := os.Stat(p); err == nil {
				return p, nil
			}
		}
		return "", fmt.Errorf("dataset: open %s: %w: no file %s or %s.gz there (Debian package dataset-fashion-mnist has them)", dir, ErrLayout, name, name)
	}
	images, errI := find(part + "-images-idx3-ubyte")
	labels, errL := find(part + "-labels-idx1-ubyte")
	if err := errors.Join(errI, errL); err != nil {
		return nil, err
	}
	return OpenIDX(part, images, labels, classes)
}

// OpenIDX reads a file of pictures and a file of labels into memory; either may
// be gzip. classes names them; nil means that they are numbers, and the set is
// Indexed. Sample ids are name-00000, name-00001, ….
func OpenIDX(name, images, labels string, classes []string) (*Set, error) {
	dims, pixels, err := readIDXFile(images, idxPictures, 3)
	if err != nil {
		return nil, err
	}
	ldims, marks, err := readIDXFile(labels, idxLabels, 1)
	if err != nil {
		return nil, err
	}
	n, h, w := dims[0], dims[1], dims[2]
	if n != ldims[0] {
		return nil, fmt.Errorf("dataset: open: %w: %d pictures in %s, %d labels in %s", ErrLayout, n, images, ldims[0], labels)
	}
	if n == 0 {
		return nil, fmt.Errorf("dataset: open %s: %w", images, ErrEmpty)
	}
	s := &Set{Name: name, Classes: classes, Indexed: classes == nil, samples: make([]Sample, n)}
	if top := int(slices.Max(marks)); classes == nil {
		for i := range top + 1 {
			s.Classes = append(s.Classes, strconv.Itoa(i))
		}
	} else if top >= len(classes) {
		return nil, fmt.Errorf("dataset: open %s: %w: label %d, but %d class names were given", labels, ErrLayout, top, len(classes))
	}
	for i := range s.samples {
		s.samples[i] = Sample{ID: fmt.Sprintf("%s-%05d", name, i), Class: int(marks[i]), src: gray{w, h, pixels[i*h*w : (i+1)*h*w]}}
	}
	return s, nil
}

// gray is a picture in memory.
type gray struct {
	w, h   int
	pixels []byte
}

func (g gray) load(context.Context) (*camera.Frame, error) {
	return &camera.Frame{Width: g.w, Height: g.h, Stride: g.w, Format: camera.Gray8, Data: bytes.Clone(g.pixels)}, nil
}

func (g gray) digest(context.Context) (d [sha256.Size]byte, err error) {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "gray8 %d %d\n", g.w, g.h) // a hash does not fail
	h.Write(g.pixels)
	h.Sum(d[:0])
	return d, nil
}

func readIDXFile(path string, magic uint32, dims int) ([]int, []byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, fmt.Errorf("dataset: open: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	in := bufio.NewReader(f)
	var src io.Reader = in
	if head, err := in.Peek(2); err == nil && head[0] == 0x1f && head[1] == 0x8b {
		if src, err = gzip.NewReader(in); err != nil {
			return nil, nil, fmt.Errorf("dataset: open %s: %w: %w", path, ErrLayout, err)
		}
	}
	d, data, err := readIDX(src, magic, dims)
	if err != nil {
		return nil, nil, fmt.Errorf("dataset: open %s: %w", path, err)
	}
	return d, data, nil
}

// readIDX reads one IDX stream to its end and checks that it is all there. It
// does not allocate more than it has read (twice).
func readIDX(src io.Reader, magic uint32, ndims int) ([]int, []byte, error) {
	head := make([]byte, 4+4*ndims)
	n, err := io.ReadFull(src, head)
	if got := binary.BigEndian.Uint32(head); n >= 4 && got != magic {
		return nil, nil, fmt.Errorf("%w: IDX magic number 0x%08x, wanted 0x%08x", ErrLayout, got, magic)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: IDX header: %w", ErrLayout, err)
	}
	dims, total := make([]int, ndims), int64(1)
	for i := range dims {
		d := binary.BigEndian.Uint32(head[4+4*i:])
		if i > 0 && (d < 1 || d > camera.MaxSide) {
			return nil, nil, fmt.Errorf("%w: IDX pictures of %d pixels a side, allowed 1…%d", ErrLayout, d, camera.MaxSide)
		}
		if d > MaxSamples {
			return nil, nil, fmt.Errorf("%w: IDX of %d elements, allowed %d", ErrTooLarge, d, MaxSamples)
		}
		dims[i] = int(d)
		if total *= int64(d); total > maxIDXBytes {
			return nil, nil, fmt.Errorf("%w: IDX of %v bytes, allowed %d", ErrTooLarge, dims, int64(maxIDXBytes))
		}
	}
	var data bytes.Buffer
	data.Grow(int(min(total, 64<<20)) + 1)
	got, err := data.ReadFrom(io.LimitReader(src, total+1))
	switch {
	case err != nil:
		return nil, nil, fmt.Errorf("%w: IDX data: %w", ErrLayout, err)
	case got < total:
		return nil, nil, fmt.Errorf("%w: IDX file is cut: %d of %d bytes", ErrLayout, got, total)
	case got > total:
		return nil, nil, fmt.Errorf("%w: IDX file has more than the %d bytes it announces", ErrLayout, total)
	}
	return dims, data.Bytes(), nil
}
