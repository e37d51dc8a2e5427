package prep

import (
	"image"
	"math"

	"github.com/droverhq/drover/infer"
)

// region is the rectangle of a frame of w × h pixels that becomes a picture of
// outW × outH.
func region(p *infer.Preprocess, w, h, outW, outH int) image.Rectangle {
	fw, fh := float64(w), float64(h)
	if p.Fit == infer.Crop {
		aspect := float64(outW) / float64(outH)
		if fw/fh > aspect {
			fw = fh * aspect
		} else {
			fh = fw / aspect
		}
	}
	rw := side(fw*p.CropFraction, w)
	rh := side(fh*p.CropFraction, h)
	at := image.Pt((w-rw)/2, (h-rh)/2)
	return image.Rectangle{Min: at, Max: at.Add(image.Pt(rw, rh))}
}

// placed is where in the input of outW × outH the rectangle ends up.
func placed(p *infer.Preprocess, rect image.Rectangle, outW, outH int) image.Rectangle {
	if p.Fit != infer.Letterbox {
		return image.Rect(0, 0, outW, outH)
	}
	rw, rh := float64(rect.Dx()), float64(rect.Dy())
	scale := min(float64(outW)/rw, float64(outH)/rh)
	pw, ph := side(rw*scale, outW), side(rh*scale, outH)
	at := image.Pt((outW-pw)/2, (outH-ph)/2)
	return image.Rectangle{Min: at, Max: at.Add(image.Pt(pw, ph))}
}

// side rounds to whole pixels within 1…limit.
func side(v float64, limit int) int { return min(max(int(math.Round(v)), 1), limit) }
