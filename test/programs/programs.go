// Package programs finds or builds the programs for tests that run them.
package programs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// Env names the folder of programs that are built already: make test sets it,
// so that what is tested is what is shipped.
const Env = "DROVER_PROGRAMS"

// Tags are the build tags of the child programs: they name the OpenCV modules.
const Tags = "gocv_specific_modules,gocv_videoio,gocv_imgcodecs"

// Folder returns a folder that holds the named programs of ./cmd, which others
// may enter, and what removes it. It is for TestMain.
func Folder(names ...string) (dir string, remove func(), err error) {
	if dir := os.Getenv(Env); dir != "" {
		for _, n := range names {
			if _, err := os.Stat(filepath.Join(dir, n)); err != nil {
				return "", nil, fmt.Errorf("%s: %w", Env, err)
			}
		}
		return dir, func() {}, nil
	}
	if dir, err = os.MkdirTemp("", "drover-programs"); err != nil {
		return "", nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	if err = os.Chmod(dir, 0o755); err != nil {
		remove()
		return "", nil, err
	}
	for _, n := range names {
		cmd := exec.Command("go", "build", "-tags", Tags, "-o", filepath.Join(dir, n), "github.com/droverhq/drover/cmd/"+n)
		cmd.Stderr = os.Stderr
		if err := cmd.Run(); err != nil {
			remove()
			return "", nil, fmt.Errorf("build %s: %w", n, err)
		}
	}
	return dir, remove, nil
}

// Run finds or builds the programs, tells their folder, and runs the tests: the
// rest of a TestMain, which gives what it returns to os.Exit.
func Run(m interface{ Run() int }, folder *string, names ...string) int {
	dir, remove, err := Folder(names...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer remove()
	*folder = dir
	return m.Run()
}
