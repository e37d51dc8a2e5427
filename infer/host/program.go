package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ProgramName is the child's file name.
const ProgramName = "drover-infer"

// ErrNoProgram is wrapped by FindProgram's error.
var ErrNoProgram = errors.New("infer/host: " + ProgramName + " not found")

// FindProgram looks for drover-infer beside the running program, then in PATH.
// The error names where it looked.
func FindProgram() (string, error) {
	beside := "the folder of the running program"
	if self, err := os.Executable(); err == nil {
		beside = filepath.Join(filepath.Dir(self), ProgramName)
		if st, err := os.Stat(beside); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return beside, nil
		}
	}
	if path, err := exec.LookPath(ProgramName); err == nil {
		return filepath.Abs(path)
	}
	return "", fmt.Errorf("%w: looked at %s and in PATH (%s)", ErrNoProgram, beside, os.Getenv("PATH"))
}
