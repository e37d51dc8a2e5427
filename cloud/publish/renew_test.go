package publish_test

import (
	"errors"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/test/repo"
)

func TestClock(t *testing.T) {
	f := repo.New(t)
	ctx := t.Context()
	sign := func(now time.Time) (int64, error) {
		p, err := publish.Publish(ctx, f, f.Keys["snapshot"], f.Keys["timestamp"], now)
		if err != nil {
			return 0, err
		}
		return p.Versions["timestamp"], nil
	}
	start := f.Time.Unix()
	for i := range int64(3) { // Init gave out the first
		if v, err := sign(f.Time); err != nil || v != start+1+i {
			t.Errorf("in the same second: %d %v, want %d", v, err, start+1+i)
		}
	}
	if v, err := sign(f.Time.Add(-50 * time.Minute)); err != nil || v != start+4 {
		t.Errorf("a clock set back by less than an hour: %d %v", v, err)
	}
	if _, err := sign(f.Time.Add(-2 * time.Hour)); !errors.Is(err, publish.ErrClock) {
		t.Errorf("a clock set back by two hours: %v", err)
	}
	if _, err := sign(time.Unix(0, 0)); !errors.Is(err, publish.ErrClock) {
		t.Errorf("1970: %v", err)
	}
	if _, err := sign(f.Time.AddDate(2, 0, 0)); !errors.Is(err, publish.ErrClock) {
		t.Errorf("after the root's end: %v", err)
	}
	if v, err := sign(f.Time.Add(time.Hour)); err != nil || v != start+3600 {
		t.Errorf("an hour later: %d %v", v, err)
	}
}

func TestSnapshotIsNewOnlyWhenItMust(t *testing.T) {
	f := repo.New(t)
	v := publishNow(t, f).Versions["snapshot"]
	if got := publishNow(t, f).Versions["snapshot"]; got != v {
		t.Errorf("nothing changed, snapshot %d after %d", got, v)
	}
	f.Release("gate", 1)
	if got := publishNow(t, f).Versions["snapshot"]; got != v+1 {
		t.Errorf("models changed, snapshot %d after %d", got, v)
	}
	f.Pass(4 * 24 * time.Hour)
	if got := publishNow(t, f).Versions["snapshot"]; got != v+2 {
		t.Errorf("half its time is over, snapshot %d after %d", got, v+1)
	}
}

func TestHubAloneKeepsAFleetFresh(t *testing.T) {
	f := repo.New(t)
	f.Roll("first", 1, f.Release("gate", 1))
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	hub := publish.Keys{"rollouts": f.Keys["rollouts"], "snapshot": f.Keys["snapshot"], "timestamp": f.Keys["timestamp"]}
	published, steps := 0, 140*24/6
	for range steps { // a hub that looks every six hours, until models is due
		f.Pass(6 * time.Hour)
		p, err := publish.Renew(t.Context(), f, hub, f.Time)
		if err != nil {
			t.Fatal(err)
		}
		if p == nil {
			continue
		}
		published++
		if err := deliver(t, dev, p); err != nil {
			t.Fatal(err)
		}
		if o, err := dev.Select("cam-1", nil); err != nil || o == nil {
			t.Fatalf("at %v: %v %v", f.Time, o, err)
		}
	}
	if published > steps*2/3 {
		t.Errorf("published %d times in %d steps", published, steps)
	}
	f.Pass(15 * 24 * time.Hour)
	pending, later, err := publish.Due(t.Context(), f, f.Time)
	if err != nil || len(pending)+len(later) != 6 {
		t.Fatal(pending, later, err)
	}
	offline := map[string]bool{}
	for _, r := range pending {
		if !r.Online {
			offline[r.Role] = true
		}
	}
	if len(offline) != 1 || !offline["models"] {
		t.Errorf("due from the owner: %v, want models", offline)
	}
}
