//go:build matprofile && cgo && gocv_specific_modules && gocv_videoio && gocv_imgcodecs

package opencv

import (
	"path/filepath"
	"testing"

	"gocv.io/x/gocv"

	"github.com/droverhq/drover/camera"
)

// Run with -tags matprofile: every Mat made while reading is closed.
func TestNoMatIsLeaked(t *testing.T) {
	dir := t.TempDir()
	picture(t, filepath.Join(dir, "1.png"), 64, 48, 1, 2, 3)
	avi := filepath.Join(t.TempDir(), "clip.avi")
	clip(t, avi, 3)
	before := gocv.MatProfile.Count()
	for _, url := range []string{"folder://" + dir + "?loop=true", "file://" + avi + "?loop=true"} {
		t.Run("replay", func(t *testing.T) {
			c := open(t, source(t, "%s", url))
			e := NewEncoder()
			defer e.Close()
			var f camera.Frame
			for range 10 {
				if err := c.Read(&f); err != nil {
					t.Fatal(err)
				}
				if _, _, _, err := e.JPEG(&f, 32, 80); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if after := gocv.MatProfile.Count(); after != before {
		t.Errorf("%d Mats before, %d after", before, after)
	}
}
