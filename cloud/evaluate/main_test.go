package evaluate

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/infer/cage"
)

// TestMain is the launcher stage of the children's cage, too.
func TestMain(m *testing.M) {
	cage.Main()
	goleak.VerifyTestMain(m)
}
