package dataset

import (
	"encoding/binary"

	"github.com/droverhq/drover/camera"
)

// exifOrientation reads how a camera was held out of a JPEG file: 1…8, and 1
// when the file does not say or says nonsense. It is tag 0x0112 in the first
// directory of the TIFF structure in segment APP1.
// Source: Exif 2.3, sections 4.5 and 4.6.4.
func exifOrientation(b []byte) int {
	for at := 2; at+4 <= len(b) && b[at] == 0xff; {
		marker, n := b[at+1], int(binary.BigEndian.Uint16(b[at+2:]))
		if marker == 0xff { // fill byte
			at++
			continue
		}
		if marker == 0xda || n < 2 || at+2+n > len(b) { // the picture begins, or it is cut
			return 1
		}
		if p := b[at+4 : at+2+n]; marker == 0xe1 && len(p) > 6 && string(p[:6]) == "Exif\x00\x00" {
			return tiffOrientation(p[6:])
		}
		at += 2 + n
	}
	return 1
}

func tiffOrientation(t []byte) int {
	const entry, tag, short = 12, 0x0112, 3
	if len(t) < 8 {
		return 1
	}
	var order binary.ByteOrder = binary.LittleEndian
	switch string(t[:4]) {
	case "II*\x00":
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 1
	}
	dir := uint64(order.Uint32(t[4:]))
	if dir+2 > uint64(len(t)) {
		return 1
	}
	n := int(order.Uint16(t[dir:]))
	entries := t[dir+2:]
	for i := 0; i < n && (i+1)*entry <= len(entries); i++ {
		e := entries[i*entry : (i+1)*entry]
		if order.Uint16(e) == tag && order.Uint16(e[2:]) == short {
			if v := int(order.Uint16(e[8:])); v >= 1 && v <= 8 {
				return v
			}
			return 1
		}
	}
	return 1
}

// orient turns a picture upright. Orientations 5 to 8 exchange the sides.
func orient(f *camera.Frame, orientation int) *camera.Frame {
	if orientation == 1 {
		return f
	}
	w, h, ch := f.Width, f.Height, f.Format.Channels()
	if orientation >= 5 {
		w, h = h, w
	}
	out := newFrame(w, h, f.Format)
	for y := range h {
		for x := range w {
			sx, sy := uprightSource(orientation, x, y, w, h)
			copy(out.Data[y*out.Stride+x*ch:][:ch], f.Data[sy*f.Stride+sx*ch:][:ch])
		}
	}
	return out
}

// uprightSource says which stored pixel belongs at (x, y) of the upright picture
// of w × h pixels.
func uprightSource(orientation, x, y, w, h int) (sx, sy int) {
	switch orientation {
	case 2: // mirrored left to right
		return w - 1 - x, y
	case 3: // upside down
		return w - 1 - x, h - 1 - y
	case 4: // mirrored top to bottom
		return x, h - 1 - y
	case 5: // mirrored along the main diagonal
		return y, x
	case 6: // to be turned 90° clockwise
		return y, w - 1 - x
	case 7: // mirrored along the other diagonal
		return h - 1 - y, w - 1 - x
	case 8: // to be turned 90° counter-clockwise
		return h - 1 - y, x
	}
	return x, y
}
