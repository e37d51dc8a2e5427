package cloud

import (
	"os"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/infer/cage"
	"github.com/droverhq/drover/infer/host"
	"github.com/droverhq/drover/test/programs"
)

// TestMain is the launcher stage of the cage, and the tests.
func TestMain(m *testing.M) {
	cage.Main()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if built.remove != nil {
			built.remove()
		}
		os.Exit(code)
	}))
}

// built is drover-infer, made or found once for all tests.
var built struct {
	once   sync.Once
	dir    string
	remove func()
	err    error
}

// runtime is the device's own; a test that needs it is skipped where it does not
// build.
func runtime(t *testing.T) host.Options {
	t.Helper()
	built.once.Do(func() { built.dir, built.remove, built.err = programs.Folder(host.ProgramName) })
	if built.err != nil {
		t.Skipf("drover-infer does not build here: %v", built.err)
	}
	return host.Options{Program: built.dir + "/" + host.ProgramName}
}
