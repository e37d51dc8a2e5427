package host

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/infer/cage"
)

// TestMain is three programs: the launcher stage of the cage, the hostile child
// of the tests, and the tests.
func TestMain(m *testing.M) {
	cage.Main()
	if deed := os.Getenv(deedEnv); deed != "" {
		os.Exit(misbehave(deed))
	}
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		if removeReal != nil {
			removeReal()
		}
		os.Exit(code)
	}))
}
