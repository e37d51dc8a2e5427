package dataset

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"strings"
	"testing"

	"golang.org/x/image/bmp"

	"github.com/droverhq/drover/camera"
)

func pngOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func jpegOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := jpeg.Encode(&b, img, &jpeg.Options{Quality: 100}); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func bmpOf(t testing.TB, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := bmp.Encode(&b, img); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func gifOf(t testing.TB, frames int) []byte {
	t.Helper()
	g := &gif.GIF{}
	for range frames {
		p := image.NewPaletted(image.Rect(0, 0, 2, 1), color.Palette{color.RGBA{1, 2, 3, 255}, color.RGBA{200, 100, 50, 255}})
		p.SetColorIndex(1, 0, 1)
		g.Image, g.Delay = append(g.Image, p), append(g.Delay, 1)
	}
	var b bytes.Buffer
	if err := gif.EncodeAll(&b, g); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// two is a picture of two pixels side by side.
func two(img interface {
	image.Image
	Set(x, y int, c color.Color)
}, left, right color.Color) image.Image {
	img.Set(0, 0, left)
	img.Set(1, 0, right)
	return img
}

func TestDecodeColours(t *testing.T) {
	r := image.Rect(0, 0, 2, 1)
	orange, sea := color.NRGBA{200, 100, 50, 255}, color.NRGBA{1, 2, 3, 255}
	clear := color.NRGBA{200, 100, 50, 0}
	bgr := []byte{3, 2, 1, 50, 100, 200}
	for name, c := range map[string]struct {
		data   []byte
		format camera.PixelFormat
		want   []byte
	}{
		"png rgb":         {pngOf(t, two(image.NewNRGBA(r), sea, orange)), camera.BGR8, bgr},
		"png rgba":        {pngOf(t, two(image.NewNRGBA(r), sea, clear)), camera.BGR8, bgr},
		"png 16 bit":      {pngOf(t, two(image.NewNRGBA64(r), color.NRGBA64{0x01ff, 0x0200, 0x0380, 0xffff}, color.NRGBA64{0xc8ff, 0x6400, 0x3201, 0x8000})), camera.BGR8, bgr},
		"png 16 bit rgb":  {pngOf(t, two(image.NewRGBA64(r), color.NRGBA64{0x01ff, 0x0200, 0x0380, 0xffff}, color.NRGBA64{0xc8ff, 0x6400, 0x3201, 0xffff})), camera.BGR8, bgr},
		"png palette":     {pngOf(t, two(image.NewPaletted(r, color.Palette{orange, sea}), sea, orange)), camera.BGR8, bgr},
		"png clear pal.":  {pngOf(t, two(image.NewPaletted(r, color.Palette{clear, sea}), sea, clear)), camera.BGR8, bgr},
		"png gray":        {pngOf(t, two(image.NewGray(r), color.Gray{7}, color.Gray{250})), camera.Gray8, []byte{7, 250}},
		"png 16 bit gray": {pngOf(t, two(image.NewGray16(r), color.Gray16{0x07ff}, color.Gray16{0xfa00})), camera.Gray8, []byte{7, 250}},
		"bmp rgb":         {bmpOf(t, two(image.NewNRGBA(r), sea, orange)), camera.BGR8, bgr},
		"bmp palette":     {bmpOf(t, two(image.NewPaletted(r, color.Palette{orange, sea}), sea, orange)), camera.BGR8, bgr},
		"gif":             {gifOf(t, 1), camera.BGR8, bgr},
		"jpeg gray":       {jpegOf(t, two(image.NewGray(r), color.Gray{90}, color.Gray{90})), camera.Gray8, []byte{90, 90}},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Decode(c.data)
			if err != nil {
				t.Fatal(err)
			}
			if f.Width != 2 || f.Height != 1 || f.Format != c.format || !bytes.Equal(f.Data, c.want) {
				t.Errorf("%d×%d %v %v, wanted %v %v", f.Width, f.Height, f.Format, f.Data, c.format, c.want)
			}
		})
	}
	f, err := Decode(jpegOf(t, two(image.NewNRGBA(r), orange, orange)))
	if err != nil || f.Format != camera.BGR8 {
		t.Fatalf("%+v, %v", f, err)
	}
	for i, want := range []int{50, 100, 200} {
		if got := int(f.Data[i]); got < want-3 || got > want+3 {
			t.Errorf("jpeg channel %d is %d, wanted about %d", i, got, want)
		}
	}
}

func TestCMYK(t *testing.T) {
	img := image.NewCMYK(image.Rect(0, 0, 1, 1))
	img.SetCMYK(0, 0, color.CMYK{C: 0, M: 255, Y: 255, K: 0})
	if f := toFrame(img); f.Format != camera.BGR8 || !bytes.Equal(f.Data, []byte{0, 0, 255}) {
		t.Errorf("red in print is %v", f.Data)
	}
}

// withOrientation puts an EXIF segment behind the start of a JPEG.
func withOrientation(jpg []byte, o uint16, order binary.AppendByteOrder, magic string) []byte {
	t := []byte(magic)
	t = order.AppendUint32(t, 8)
	t = order.AppendUint16(t, 2)
	t = append(t, make([]byte, 12)...) // an entry before it
	t = order.AppendUint16(t, 0x0112)
	t = order.AppendUint16(t, 3)
	t = order.AppendUint32(t, 1)
	t = order.AppendUint16(t, o)
	t = append(t, 0, 0, 0, 0, 0, 0)
	seg := append([]byte("Exif\x00\x00"), t...)
	out := append([]byte{}, jpg[:2]...)
	out = append(out, 0xff, 0xe0, 0, 4, 1, 2) // some other segment
	out = append(out, 0xff, 0xe1)
	out = binary.BigEndian.AppendUint16(out, uint16(len(seg)+2))
	out = append(out, seg...)
	return append(out, jpg[2:]...)
}

func TestOrientation(t *testing.T) {
	// Blocks of 16 pixels keep the JPEG's losses apart: dark, middle, light above
	// darkest row.
	img := image.NewGray(image.Rect(0, 0, 48, 32))
	level := [2][3]uint8{{40, 120, 200}, {0, 80, 250}}
	for y := range 32 {
		for x := range 48 {
			img.SetGray(x, y, color.Gray{level[y/16][x/16]})
		}
	}
	jpg := jpegOf(t, img)
	for o, want := range map[uint16][][]uint8{ // how the picture looks upright, by Exif's table
		1: {{40, 120, 200}, {0, 80, 250}},
		2: {{200, 120, 40}, {250, 80, 0}},
		3: {{250, 80, 0}, {200, 120, 40}},
		4: {{0, 80, 250}, {40, 120, 200}},
		5: {{40, 0}, {120, 80}, {200, 250}},
		6: {{0, 40}, {80, 120}, {250, 200}},
		7: {{250, 200}, {80, 120}, {0, 40}},
		8: {{200, 250}, {120, 80}, {40, 0}},
		9: {{40, 120, 200}, {0, 80, 250}}, // nonsense is no orientation
	} {
		for magic, order := range map[string]binary.AppendByteOrder{"II*\x00": binary.LittleEndian, "MM\x00*": binary.BigEndian} {
			f, err := Decode(withOrientation(jpg, o, order, magic))
			if err != nil {
				t.Fatal(err)
			}
			if f.Width != 16*len(want[0]) || f.Height != 16*len(want) {
				t.Errorf("orientation %d: %d×%d", o, f.Width, f.Height)
				continue
			}
			for y, row := range want {
				for x, v := range row {
					got := int(f.Data[(16*y+8)*f.Stride+16*x+8])
					if got < int(v)-6 || got > int(v)+6 {
						t.Errorf("orientation %d: block %d,%d is %d, wanted about %d", o, x, y, got, v)
					}
				}
			}
		}
	}
}

// bomb is a PNG whose header announces w × h pixels.
func bomb(w, h uint32) []byte {
	chunk := func(name string, body []byte) []byte {
		b := binary.BigEndian.AppendUint32(nil, uint32(len(body)))
		b = append(append(b, name...), body...)
		return binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b[4:]))
	}
	head := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, w), h)
	var z bytes.Buffer
	zw := zlib.NewWriter(&z)
	_ = zw.Close() // into memory
	return append(append([]byte("\x89PNG\r\n\x1a\n"), chunk("IHDR", append(head, 8, 2, 0, 0, 0))...), chunk("IDAT", z.Bytes())...)
}

func TestDecodeRefuses(t *testing.T) {
	good := pngOf(t, two(image.NewGray(image.Rect(0, 0, 2, 1)), color.Gray{7}, color.Gray{250}))
	for name, c := range map[string]struct {
		data []byte
		says string
	}{
		"empty":       {nil, "empty"},
		"text":        {[]byte("hello, this is text"), "convert"},
		"webp":        {[]byte("RIFF\x00\x00\x00\x00WEBPVP8 "), "WebP"},
		"tiff":        {[]byte("II*\x00\x08\x00\x00\x00"), "TIFF"},
		"heif":        {[]byte("\x00\x00\x00\x18ftypheic\x00\x00"), "HEIF"},
		"cut":         {good[:len(good)-20], "PNG"},
		"cut header":  {good[:12], "header"},
		"cut jpeg":    {[]byte("\xff\xd8\xff\xe0"), "JPEG"},
		"too wide":    {bomb(8193, 1), "8193×1 pixels"},
		"too much":    {bomb(8192, 8192), "bytes"},
		"huge":        {bomb(1<<31-1, 1<<31-1), ""},
		"animated":    {gifOf(t, 2), "animated"},
		"large file":  {append([]byte("BM"), make([]byte, MaxFileBytes)...), "allowed"},
		"nothing gif": {[]byte("GIF89a\x01\x00\x01\x00\x00\x00\x00;"), "GIF"},
	} {
		t.Run(name, func(t *testing.T) {
			f, err := Decode(c.data)
			if !errors.Is(err, ErrUnreadable) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v and %v, wanted ErrUnreadable that says %q", f, err, c.says)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	gray := image.NewGray(image.Rect(0, 0, 3, 2))
	colour := image.NewNRGBA(gray.Rect)
	jpg := jpegOf(f, colour)
	for _, seed := range [][]byte{
		pngOf(f, gray), pngOf(f, colour), jpg, bmpOf(f, colour), gifOf(f, 1), gifOf(f, 2), bomb(8192, 8192),
		withOrientation(jpg, 6, binary.LittleEndian, "II*\x00"), withOrientation(jpg, 8, binary.BigEndian, "MM\x00*"),
	} {
		if len(seed) == 0 {
			f.Fatal("an empty seed")
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		// Decoding large pictures is slow and tells nothing new.
		if c, err := readHeader(bytes.NewReader(data)); err == nil && c.Width*c.Height > 1<<16 {
			t.Skip()
		}
		frame, err := Decode(data)
		if err != nil {
			if !errors.Is(err, ErrUnreadable) {
				t.Fatalf("an error without kind: %v", err)
			}
			return
		}
		if err := frame.Check(); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzOrientation(f *testing.F) {
	jpg := jpegOf(f, image.NewGray(image.Rect(0, 0, 1, 1)))
	f.Add(withOrientation(jpg, 6, binary.LittleEndian, "II*\x00"))
	f.Add(withOrientation(jpg, 3, binary.BigEndian, "MM\x00*"))
	f.Add(jpg)
	f.Fuzz(func(t *testing.T, data []byte) {
		if o := exifOrientation(data); o < 1 || o > 8 {
			t.Fatalf("orientation %d", o)
		}
		gifFrames(data, 1<<20) // must end
	})
}
