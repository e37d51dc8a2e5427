package dataset

import (
	"image"
	"image/color"

	"github.com/droverhq/drover/camera"
)

func newFrame(w, h int, f camera.PixelFormat) *camera.Frame {
	stride := w * f.Channels()
	return &camera.Frame{Width: w, Height: h, Stride: stride, Format: f, Data: make([]byte, h*stride)}
}

// toFrame copies a decoded picture. The frequent kinds of memory have loops of
// their own; the rest goes pixel by pixel.
func toFrame(img image.Image) *camera.Frame {
	r := img.Bounds()
	w, h := r.Dx(), r.Dy()
	switch img := img.(type) {
	case *image.Gray:
		f := newFrame(w, h, camera.Gray8)
		for y := range h {
			copy(f.Data[y*w:(y+1)*w], img.Pix[img.PixOffset(r.Min.X, r.Min.Y+y):])
		}
		return f
	case *image.Gray16:
		f := newFrame(w, h, camera.Gray8)
		for y := range h {
			for x := range w {
				f.Data[y*w+x] = uint8(img.Gray16At(r.Min.X+x, r.Min.Y+y).Y >> 8)
			}
		}
		return f
	}
	f := newFrame(w, h, camera.BGR8)
	pixel := rgbOf(img)
	at := 0
	for y := range h {
		for x := range w {
			red, green, blue := pixel(r.Min.X+x, r.Min.Y+y)
			f.Data[at], f.Data[at+1], f.Data[at+2] = blue, green, red
			at += 3
		}
	}
	return f
}

// rgbOf gives the colour of a pixel without regard to transparency.
func rgbOf(img image.Image) func(x, y int) (r, g, b uint8) {
	switch img := img.(type) {
	case *image.YCbCr:
		return func(x, y int) (r, g, b uint8) {
			c := img.COffset(x, y)
			return color.YCbCrToRGB(img.Y[img.YOffset(x, y)], img.Cb[c], img.Cr[c])
		}
	case *image.NRGBA:
		return func(x, y int) (r, g, b uint8) {
			p := img.Pix[img.PixOffset(x, y):][:3]
			return p[0], p[1], p[2]
		}
	case *image.RGBA: // decoders give it for opaque pictures only
		return func(x, y int) (r, g, b uint8) {
			p := img.Pix[img.PixOffset(x, y):][:3]
			return p[0], p[1], p[2]
		}
	case *image.Paletted:
		colors := make([]color.NRGBA, 256) // a palette may be shorter than the indices allow
		for i, c := range img.Palette {
			colors[i] = opaque(c)
		}
		return func(x, y int) (r, g, b uint8) {
			c := colors[img.ColorIndexAt(x, y)]
			return c.R, c.G, c.B
		}
	}
	return func(x, y int) (r, g, b uint8) {
		c := opaque(img.At(x, y))
		return c.R, c.G, c.B
	}
}

// opaque is a colour as it is stored, its transparency not applied. A colour
// that is premultiplied and fully transparent has lost its value and is black.
func opaque(c color.Color) color.NRGBA {
	switch c := c.(type) {
	case color.NRGBA:
		return c
	case color.NRGBA64:
		return color.NRGBA{uint8(c.R >> 8), uint8(c.G >> 8), uint8(c.B >> 8), 0xff}
	}
	r, g, b, a := c.RGBA()
	if a == 0 || a == 0xffff {
		return color.NRGBA{uint8(r >> 8), uint8(g >> 8), uint8(b >> 8), 0xff}
	}
	return color.NRGBA{uint8(r * 0xff / a), uint8(g * 0xff / a), uint8(b * 0xff / a), 0xff}
}
