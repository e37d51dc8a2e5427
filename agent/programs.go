package agent

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/droverhq/drover/agent/vision"
)

// ErrNoProgram says that a child program is not where it was looked for.
var ErrNoProgram = errors.New("agent: child program not found")

// findPrograms looks for the child programs in dir; where the configuration
// names none, beside this program and then in PATH.
func findPrograms(dir string) (p vision.Programs, err error) {
	for name, into := range map[string]*string{"drover-camera": &p.Camera, "drover-infer": &p.Infer} {
		if *into, err = findProgram(dir, name); err != nil {
			return p, err
		}
	}
	return p, nil
}

func findProgram(dir, name string) (string, error) {
	if dir != "" {
		// Children run in another folder.
		path, err := filepath.Abs(filepath.Join(dir, name))
		if err != nil {
			return "", fmt.Errorf("agent: child program: %w", err)
		}
		if !runnable(path) {
			return "", fmt.Errorf("%w: %s is no executable file; children.programs names its folder", ErrNoProgram, path)
		}
		return path, nil
	}
	beside := "the folder of droverd"
	if self, err := os.Executable(); err == nil {
		beside = filepath.Join(filepath.Dir(self), name)
		if runnable(beside) {
			return beside, nil
		}
	}
	if path, err := exec.LookPath(name); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf("%w: looked at %s and for %s in PATH; set children.programs to the folder that holds it", ErrNoProgram, beside, name)
}

func runnable(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0
}
