//go:build cgo

package prep

import (
	"fmt"

	"gocv.io/x/gocv"
)

// buffer is a Mat with its memory in sight. It is made anew only when its
// shape changes.
type buffer struct {
	mat                     gocv.Mat
	pix                     []byte // of mat, without gaps between rows
	width, height, channels int
}

func (b *buffer) shape(width, height, channels int) error {
	if b.pix != nil && b.width == width && b.height == height && b.channels == channels {
		return nil
	}
	b.close()
	kind := gocv.MatTypeCV8UC1
	if channels == 3 {
		kind = gocv.MatTypeCV8UC3
	}
	b.mat = gocv.NewMatWithSize(height, width, kind)
	pix, err := b.mat.DataPtrUint8()
	if err != nil || len(pix) != width*height*channels {
		b.mat.Close()
		return fmt.Errorf("prep: buffer of %d×%d×%d: %d bytes, %v", width, height, channels, len(pix), err)
	}
	b.pix, b.width, b.height, b.channels = pix, width, height, channels
	return nil
}

func (b *buffer) picture() picture {
	return picture{pix: b.pix, stride: b.width * b.channels, channels: b.channels}
}

func (b *buffer) close() {
	if b.pix != nil {
		b.mat.Close()
		b.pix = nil
	}
}
