//go:build cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"bytes"
	"fmt"
	"image"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
)

// Encoder makes JPEGs of frames. It is for one goroutine.
type Encoder struct {
	small   gocv.Mat
	compact []byte
}

// NewEncoder makes an Encoder; Close frees it.
func NewEncoder() *Encoder { return &Encoder{small: gocv.NewMat()} }

// JPEG encodes f at the quality (1…100), shrunk to at most width pixels across
// in the same proportions, never enlarged. It returns the JPEG and its size in
// pixels.
func (e *Encoder) JPEG(f *camera.Frame, width, quality int) (jpeg []byte, w, h int, err error) {
	if err := f.Check(); err != nil {
		return nil, 0, 0, err
	}
	if width < 1 || quality < 1 || quality > 100 {
		return nil, 0, 0, fmt.Errorf("opencv: encode preview: width %d, quality %d", width, quality)
	}
	kind := gocv.MatTypeCV8UC3
	if f.Format == camera.Gray8 {
		kind = gocv.MatTypeCV8UC1
	}
	mat, err := gocv.NewMatFromBytes(f.Height, f.Width, kind, e.withoutPadding(f))
	if err != nil {
		return nil, 0, 0, fmt.Errorf("opencv: encode preview: %w", err)
	}
	defer mat.Close()
	out := mat
	if f.Width > width {
		size := image.Pt(width, max(1, (f.Height*width+f.Width/2)/f.Width))
		if err := gocv.Resize(mat, &e.small, size, 0, 0, gocv.InterpolationArea); err != nil {
			return nil, 0, 0, fmt.Errorf("opencv: encode preview: resize: %w", err)
		}
		out = e.small
	}
	buf, err := gocv.IMEncodeWithParams(gocv.JPEGFileExt, out, []int{gocv.IMWriteJpegQuality, quality})
	if buf != nil {
		defer buf.Close()
	}
	if err != nil {
		return nil, 0, 0, fmt.Errorf("opencv: encode preview: %w", err)
	}
	return bytes.Clone(buf.GetBytes()), out.Cols(), out.Rows(), nil
}

// withoutPadding gives the pixels row by row, as gocv can take them.
func (e *Encoder) withoutPadding(f *camera.Frame) []byte {
	row := f.Width * f.Format.Channels()
	if f.Stride == row {
		return f.Data
	}
	e.compact = e.compact[:0]
	for y := range f.Height {
		e.compact = append(e.compact, f.Data[y*f.Stride:][:row]...)
	}
	return e.compact
}

// Close frees native memory.
func (e *Encoder) Close() error { return e.small.Close() }
