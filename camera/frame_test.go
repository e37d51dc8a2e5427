package camera

import (
	"errors"
	"math"
	"testing"
)

func TestFrameCheck(t *testing.T) {
	good := Frame{Width: 4, Height: 3, Stride: 12, Format: BGR8, Data: make([]byte, 36)}
	for _, tt := range []struct {
		name string
		edit func(f *Frame)
		ok   bool
	}{
		{"as it should be", func(f *Frame) {}, true},
		{"padded rows", func(f *Frame) { f.Stride, f.Data = 16, make([]byte, 48) }, true},
		{"gray", func(f *Frame) { f.Format, f.Stride, f.Data = Gray8, 4, make([]byte, 12) }, true},
		{"as large as allowed", func(f *Frame) {
			*f = Frame{Width: MaxSide, Height: MaxSide, Stride: MaxSide, Format: Gray8, Data: make([]byte, MaxFrameBytes)}
		}, true},
		{"no format", func(f *Frame) { f.Format = 0 }, false},
		{"unknown format", func(f *Frame) { f.Format = 3 }, false},
		{"no width", func(f *Frame) { f.Width = 0 }, false},
		{"negative height", func(f *Frame) { f.Height = -3 }, false},
		{"too wide", func(f *Frame) { f.Width = MaxSide + 1 }, false},
		{"too high", func(f *Frame) { f.Height = MaxSide + 1 }, false},
		{"rows overlap", func(f *Frame) { f.Stride = 11 }, false},
		{"negative stride", func(f *Frame) { f.Stride = -12 }, false},
		{"endless stride", func(f *Frame) { f.Stride = math.MaxInt }, false},
		{"product wraps to the length", func(f *Frame) { f.Height, f.Stride, f.Data = 4, 1<<62+9, make([]byte, 36) }, false},
		{"a byte short", func(f *Frame) { f.Data = f.Data[:35] }, false},
		{"a byte long", func(f *Frame) { f.Data = make([]byte, 37) }, false},
		{"no data", func(f *Frame) { f.Data = nil }, false},
	} {
		f := good
		tt.edit(&f)
		err := f.Check()
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

func TestPixelFormats(t *testing.T) {
	for _, tt := range []struct {
		format   PixelFormat
		channels int
		name     string
	}{{BGR8, 3, "bgr8"}, {Gray8, 1, "gray8"}, {0, 0, "unknown(0)"}, {99, 0, "unknown(99)"}} {
		if tt.format.Channels() != tt.channels || tt.format.String() != tt.name {
			t.Errorf("format %d: %d channels, %q", uint32(tt.format), tt.format.Channels(), tt.format)
		}
	}
}
