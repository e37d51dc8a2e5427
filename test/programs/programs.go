// Package programs builds the programs for tests that run them.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Tags are the build tags of the child programs: they name the OpenCV modules.
const Tags = "gocv_specific_modules,gocv_videoio,gocv_imgcodecs"

// Build builds the named programs of ./cmd into dir.
func Build(dir string, names ...string) error {
	for _, n := range names {
		cmd := exec.Command("go", "build", "-tags", Tags, "-o", filepath.Join(dir, n), "github.com/droverhq/drover/cmd/"+n)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w", n, err)
		}
	}
	return nil
}
