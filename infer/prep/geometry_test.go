package prep

import (
	"image"
	"testing"

	"pgregory.net/rapid"

	"github.com/droverhq/drover/infer"
)

func TestRegionAndPlace(t *testing.T) {
	for _, tc := range []struct {
		name       string
		fit        infer.Fit
		fraction   float64
		w, h       int // frame
		outW, outH int
		rect, at   image.Rectangle
	}{
		{"stretch takes all", infer.Stretch, 1, 640, 480, 224, 224, image.Rect(0, 0, 640, 480), image.Rect(0, 0, 224, 224)},
		{"crop of a wide frame", infer.Crop, 1, 640, 480, 224, 224, image.Rect(80, 0, 560, 480), image.Rect(0, 0, 224, 224)},
		{"crop of a tall frame", infer.Crop, 1, 480, 640, 224, 224, image.Rect(0, 80, 480, 560), image.Rect(0, 0, 224, 224)},
		{"crop to a wide input", infer.Crop, 1, 480, 640, 200, 100, image.Rect(0, 200, 480, 440), image.Rect(0, 0, 200, 100)},
		{"7/8 of the short side", infer.Crop, 0.875, 640, 480, 224, 224, image.Rect(110, 30, 530, 450), image.Rect(0, 0, 224, 224)},
		{"7/8 of both sides", infer.Stretch, 0.875, 640, 480, 224, 224, image.Rect(40, 30, 600, 450), image.Rect(0, 0, 224, 224)},
		{"letterbox of a wide frame", infer.Letterbox, 1, 640, 480, 224, 224, image.Rect(0, 0, 640, 480), image.Rect(0, 28, 224, 196)},
		{"letterbox of a tall frame", infer.Letterbox, 1, 480, 640, 224, 224, image.Rect(0, 0, 480, 640), image.Rect(28, 0, 196, 224)},
		{"letterbox enlarges", infer.Letterbox, 1, 10, 20, 224, 224, image.Rect(0, 0, 10, 20), image.Rect(56, 0, 168, 224)},
		{"one pixel", infer.Crop, 0.01, 1, 1, 224, 224, image.Rect(0, 0, 1, 1), image.Rect(0, 0, 224, 224)},
		{"a line", infer.Letterbox, 1, 8192, 1, 32, 32, image.Rect(0, 0, 8192, 1), image.Rect(0, 15, 32, 16)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := &infer.Preprocess{Fit: tc.fit, CropFraction: tc.fraction}
			rect := region(p, tc.w, tc.h, tc.outW, tc.outH)
			if rect != tc.rect {
				t.Errorf("region %v, want %v", rect, tc.rect)
			}
			if at := placed(p, rect, tc.outW, tc.outH); at != tc.at {
				t.Errorf("placed at %v, want %v", at, tc.at)
			}
		})
	}
}

func TestRectanglesStayInside(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		side := rapid.IntRange(1, 8192)
		w, h, outW, outH := side.Draw(t, "w"), side.Draw(t, "h"), side.Draw(t, "outW"), side.Draw(t, "outH")
		p := &infer.Preprocess{
			Fit:          rapid.SampledFrom([]infer.Fit{infer.Stretch, infer.Crop, infer.Letterbox}).Draw(t, "fit"),
			CropFraction: rapid.Float64Range(1e-9, 1).Draw(t, "fraction"),
		}
		rect := region(p, w, h, outW, outH)
		if rect.Empty() || !rect.In(image.Rect(0, 0, w, h)) {
			t.Fatalf("region %v of a frame of %d×%d", rect, w, h)
		}
		at := placed(p, rect, outW, outH)
		if at.Empty() || !at.In(image.Rect(0, 0, outW, outH)) {
			t.Fatalf("placed at %v in %d×%d", at, outW, outH)
		}
	})
}
