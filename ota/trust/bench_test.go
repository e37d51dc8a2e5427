package trust_test

import (
	"testing"
	"time"

	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// A whole first refresh: open with the enrolment's root, take everything.
func BenchmarkFirstRefresh(b *testing.B) {
	f := repo.New(b)
	f.Roll("first", 1, f.Release("gate", 1))
	w := f.Publish()
	for b.Loop() {
		c, err := trust.Open(trust.Options{Store: new(trust.Memory), Root: f.Root(), Boottime: func() time.Duration { return 0 }})
		if err != nil {
			b.Fatal(err)
		}
		if err := w.Offer(c); err != nil {
			b.Fatal(err)
		}
		if err := c.Refresh(); err != nil {
			b.Fatal(err)
		}
	}
}
