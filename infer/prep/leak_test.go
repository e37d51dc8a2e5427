//go:build cgo && matprofile

package prep

import (
	"testing"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
	"github.com/droverhq/drover/infer"
)

// With -tags matprofile gocv counts the Mats that are open.
func TestCloseFreesEveryMat(t *testing.T) {
	before := gocv.MatProfile.Count()
	spec := specOf(raw(1, 16, 16, 1))
	spec.Preprocess.Fit = infer.Letterbox
	p, err := New(spec)
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, 256)
	for side := 10; side < 40; side++ {
		if err := p.Prepare(scene(camera.BGR8, side, side/2), dst); err != nil {
			t.Fatal(err)
		}
	}
	if n := gocv.MatProfile.Count() - before; n < 1 || n > 3 {
		t.Errorf("%d Mats are open in use, want 1…3", n)
	}
	p.Close()
	if n := gocv.MatProfile.Count(); n != before {
		t.Errorf("%d Mats were not closed", n-before)
	}
}
