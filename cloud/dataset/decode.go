package dataset

import (
	"bufio"
	"bytes"
	"fmt"
	"image"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"

	"golang.org/x/image/bmp"

	"github.com/droverhq/drover/camera"
)

// format is a picture format drover reads.
type format struct {
	name   string
	config func(io.Reader) (image.Config, error)
	decode func(io.Reader) (image.Image, error)
}

// sniffLen is enough to tell all formats apart.
const sniffLen = 16

// sniff tells the format by its first bytes; names are not trusted.
func sniff(head []byte) (format, error) {
	is := func(magic string) bool { return bytes.HasPrefix(head, []byte(magic)) }
	switch {
	case is("\x89PNG\r\n\x1a\n"):
		return format{"PNG", png.DecodeConfig, png.Decode}, nil
	case is("\xff\xd8\xff"):
		return format{"JPEG", jpeg.DecodeConfig, jpeg.Decode}, nil
	case is("BM"):
		return format{"BMP", bmp.DecodeConfig, bmp.Decode}, nil
	case is("GIF87a"), is("GIF89a"):
		return format{"GIF", gif.DecodeConfig, gif.Decode}, nil
	}
	other := "no picture format drover knows"
	switch {
	case len(head) == 0:
		other = "the file is empty"
	case is("RIFF") && len(head) >= 12 && string(head[8:12]) == "WEBP":
		other = "WebP is not read"
	case is("II*\x00"), is("MM\x00*"):
		other = "TIFF is not read"
	case len(head) >= 12 && string(head[4:8]) == "ftyp":
		other = "HEIF and AVIF are not read"
	}
	return format{}, fmt.Errorf("%w: %s; convert it to PNG or JPEG", ErrUnreadable, other)
}

// readHeader checks that the head of a picture announces something that can be
// decoded within the limits.
func readHeader(r io.Reader) (image.Config, error) {
	in := bufio.NewReader(r)
	head, err := in.Peek(sniffLen)
	if err != nil && err != io.EOF {
		return image.Config{}, unreadable(err)
	}
	f, err := sniff(head)
	if err != nil {
		return image.Config{}, err
	}
	c, err := f.config(in)
	if err != nil {
		return image.Config{}, fmt.Errorf("%w: %s header: %w", ErrUnreadable, f.name, err)
	}
	if c.Width < 1 || c.Height < 1 || c.Width > camera.MaxSide || c.Height > camera.MaxSide {
		return image.Config{}, fmt.Errorf("%w: %d×%d pixels, allowed 1…%d a side", ErrUnreadable, c.Width, c.Height, camera.MaxSide)
	}
	if n := c.Width * c.Height * camera.BGR8.Channels(); n > camera.MaxFrameBytes {
		return image.Config{}, fmt.Errorf("%w: %d×%d pixels are %d bytes, allowed %d", ErrUnreadable, c.Width, c.Height, n, camera.MaxFrameBytes)
	}
	return c, nil
}

// Decode turns the bytes of a PNG, JPEG, BMP or still GIF file into a frame of
// its own memory: Gray8 for gray PNG, JPEG and BMP, else BGR8. A JPEG is turned
// as its EXIF orientation says. Errors wrap ErrUnreadable.
func Decode(data []byte) (*camera.Frame, error) {
	if len(data) > MaxFileBytes {
		return nil, fmt.Errorf("%w: %d bytes, allowed %d", ErrUnreadable, len(data), MaxFileBytes)
	}
	if _, err := readHeader(bytes.NewReader(data)); err != nil {
		return nil, err
	}
	f, err := sniff(data[:min(len(data), sniffLen)])
	if err != nil {
		return nil, err
	}
	if f.name == "GIF" {
		if n := gifFrames(data, 2); n > 1 {
			return nil, fmt.Errorf("%w: an animated GIF is no single picture", ErrUnreadable)
		}
	}
	img, err := f.decode(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreadable, f.name, err)
	}
	out := toFrame(img)
	if f.name == "JPEG" {
		out = orient(out, exifOrientation(data))
	}
	if err := out.Check(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnreadable, err)
	}
	return out, nil
}

// gifFrames counts the pictures in a GIF, at most limit, without decoding them.
// Source of the layout: GIF89a specification. A cut file ends the count.
func gifFrames(b []byte, limit int) int {
	const header, descriptor = 13, 10
	if len(b) < header {
		return 0
	}
	table := func(flags byte) int { // bytes of a colour table
		if flags&0x80 == 0 {
			return 0
		}
		return 3 << (flags&7 + 1)
	}
	subBlocks := func(at int) int { // position behind a chain of sub-blocks
		for at < len(b) && b[at] != 0 {
			at += 1 + int(b[at])
		}
		return at + 1
	}
	n := 0
	for at := header + table(b[10]); at < len(b) && n < limit; {
		switch b[at] {
		case 0x21: // extension: label, sub-blocks
			at = subBlocks(at + 2)
		case 0x2c: // image: descriptor, colour table, code size, sub-blocks
			n++
			if at+descriptor > len(b) {
				return n
			}
			at = subBlocks(at + descriptor + table(b[at+9]) + 1)
		default: // trailer, or rubbish
			return n
		}
	}
	return n
}
