// Package camera says what a frame is, what a source of frames promises, and
// how frames travel from the process that captures them to the processes that
// read them: through a ring in shared memory (see Ring).
//
// The package is pure Go. Capturing itself needs OpenCV and stands in
// camera/opencv; only the child program drover-camera imports that.
package camera

import (
	"errors"
	"fmt"
	"time"
)

// Limits of a frame. A header that exceeds them is refused by every reader:
// it comes out of a process that parses hostile streams.
const (
	MaxSide       = 8192             // pixels, width and height each
	MaxFrameBytes = 64 * 1024 * 1024 // bytes of pixels
)

// PixelFormat says how the bytes of a frame are to be read.
type PixelFormat uint32

// The pixel formats. All have 8 bits a channel, rows from top to bottom,
// pixels from left to right, channels interleaved.
const (
	BGR8  PixelFormat = 1 // 3 bytes a pixel: blue, green, red (OpenCV's order)
	Gray8 PixelFormat = 2 // 1 byte a pixel
)

// Channels is the number of bytes of one pixel, or 0 for an unknown format.
func (f PixelFormat) Channels() int {
	switch f {
	case BGR8:
		return 3
	case Gray8:
		return 1
	}
	return 0
}

// String is the format's name as it stands in configuration and messages.
func (f PixelFormat) String() string {
	switch f {
	case BGR8:
		return "bgr8"
	case Gray8:
		return "gray8"
	}
	return fmt.Sprintf("unknown(%d)", uint32(f))
}

// Frame is one picture out of a source.
//
// Data belongs to whoever filled the frame: a Ring reader reuses it at the
// next read. A gap in Seq is a dropped frame.
type Frame struct {
	Seq        uint64        // 1, 2, 3 … per source since it was opened
	CapturedAt time.Duration // CLOCK_MONOTONIC of the capturing machine
	Width      int           // pixels
	Height     int           // pixels
	Stride     int           // bytes from one row to the next, ≥ Width × channels
	Format     PixelFormat
	Data       []byte // Height × Stride bytes
}

// ErrFrame is what Frame.Check wraps.
var ErrFrame = errors.New("camera: impossible frame")

// Check says whether the header and the length of Data agree and stay within
// the limits.
func (f *Frame) Check() error {
	ch := f.Format.Channels()
	switch {
	case ch == 0:
		return fmt.Errorf("%w: pixel format %v", ErrFrame, f.Format)
	case f.Width < 1 || f.Height < 1 || f.Width > MaxSide || f.Height > MaxSide:
		return fmt.Errorf("%w: %d×%d pixels, allowed 1…%d a side", ErrFrame, f.Width, f.Height, MaxSide)
	case f.Stride < f.Width*ch:
		return fmt.Errorf("%w: stride %d bytes for %d pixels of %d bytes", ErrFrame, f.Stride, f.Width, ch)
	case f.Stride > MaxFrameBytes/f.Height:
		return fmt.Errorf("%w: %d rows of %d bytes, allowed %d bytes in all", ErrFrame, f.Height, f.Stride, MaxFrameBytes)
	case len(f.Data) != f.Height*f.Stride:
		return fmt.Errorf("%w: %d bytes of pixels, header says %d", ErrFrame, len(f.Data), f.Height*f.Stride)
	}
	return nil
}
