package agent

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/config"
	"github.com/droverhq/drover/agent/inbox"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/bundle"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/store"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// handDevice is a member of a fleet with the real verifier and store, whose
// updater does not run.
func handDevice(t *testing.T, f *repo.Fleet, build time.Time) byHand {
	t.Helper()
	dir, err := store.OpenDir(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := &Agent{cfg: config.Config{Device: "gate-1"}, opts: Options{BuildTime: build}, store: st, log: slog.New(slog.DiscardHandler)}
	m := &member{fleet: "testfleet"}
	if m.trust, err = trust.Open(trust.Options{Store: st, Root: f.Root(), BuildTime: build}); err != nil {
		t.Fatal(err)
	}
	m.updater, err = ota.New(ota.Config{
		Device: "gate-1", Store: st, Trust: ota.FromTrust(m.trust), Fetcher: fetch.New(fetch.Config{Near: []fetch.Reader{fetch.NewFolder(t.TempDir())}}),
		Prober: prober{a}, Activator: activator{a}, Health: judge{a}, Anchor: struct{ ota.Anchor }{}, Inspect: inspect,
	})
	if err != nil {
		t.Fatal(err)
	}
	return byHand{a, m, f.Root()}
}

// publication is what a fleet publishes now.
func publication(t *testing.T, f *repo.Fleet) *publish.Publication {
	t.Helper()
	p, err := publish.Publish(t.Context(), f, f.Keys["snapshot"], f.Keys["timestamp"], f.Time)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// packed makes a bundle of a release and reads it again.
func packed(t *testing.T, f *repo.Fleet, p *publish.Publication, release string, change func(*bundle.Content)) (*bundle.Bundle, *bytes.Reader) {
	t.Helper()
	blob := func(b []byte) bundle.Blob {
		return bundle.Blob{Digest: wire.NewBlobRef(b).Digest, Size: int64(len(b)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }}
	}
	manifest := f.Manifests[release]
	c := bundle.Content{
		Head:    bundle.Head{V: 1, Fleet: "testfleet", Release: release, Manifest: wire.NewBlobRef(manifest).Digest, Created: f.Time.Unix()},
		Current: p.Current, Blobs: []bundle.Blob{blob(manifest), blob([]byte("golden")), blob([]byte("gate"))},
	}
	for _, m := range p.Retained {
		c.Metadata = append(c.Metadata, bundle.Metadata(m))
	}
	if change != nil {
		change(&c)
	}
	var raw bytes.Buffer
	if err := bundle.Write(&raw, &c); err != nil {
		t.Fatal(err)
	}
	r := bytes.NewReader(raw.Bytes())
	b, err := bundle.Read(r, r.Size())
	if err != nil {
		t.Fatal(err)
	}
	return b, r
}

// take gives a publication to the device's own verifier, as a broker would.
func take(t *testing.T, h byHand, p *publish.Publication) {
	t.Helper()
	for _, m := range p.Retained {
		if err := h.m.trust.OfferRole(m.Role, m.Version, m.Raw); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(h.m.trust.OfferCurrent(p.Current), h.m.trust.Refresh()); err != nil {
		t.Fatal(err)
	}
}

// TestJudge is a table of bundles and what the device's verifier says; none of
// them changes what the device holds.
func TestJudge(t *testing.T) {
	f := repo.New(t)
	one, two := f.Release("gate", 1), f.Release("gate", 2)
	f.Roll("r1", 1, one)
	old := publication(t, f)
	f.Pass(time.Hour)
	f.Roll("r2", 2, two)
	fresh := publication(t, f)
	f.Pass(time.Hour)
	again := publication(t, f)
	f.Pass(time.Hour)
	plan := repo.Plan("r3", 3, two)
	plan.Selector = wire.Selector{Devices: []string{"gate-2"}}
	f.SetPlans(plan)
	theirs := publication(t, f)
	other := repo.New(t)
	foreign := other.Release("gate", 2)
	other.Roll("r2", 2, foreign)
	strange := publication(t, other)

	for _, c := range []struct {
		name    string
		seen    *publish.Publication // by the device before
		later   time.Duration        // of the device's clock
		fleet   *repo.Fleet
		bundle  *publish.Publication
		release string
		change  func(*bundle.Content)
		want    wire.Reason
		says    string
	}{
		{name: "new device", bundle: fresh, release: two},
		{name: "newer", seen: old, bundle: fresh, release: two},
		{name: "the same", seen: fresh, bundle: fresh, release: two},
		{name: "older, but of the release that is wanted", seen: again, bundle: fresh, release: two},
		{name: "older", seen: fresh, bundle: old, release: one, want: wire.ReasonRollback},
		{name: "expired", later: 9 * 24 * time.Hour, bundle: fresh, release: two, want: wire.ReasonExpired},
		{name: "expired and seen", seen: fresh, later: 9 * 24 * time.Hour, bundle: fresh, release: two, want: wire.ReasonExpired},
		{name: "another fleet", fleet: other, bundle: strange, release: foreign, want: wire.ReasonSignature, says: "another fleet"},
		{name: "another name", bundle: fresh, release: two, change: func(c *bundle.Content) { c.Head.Fleet = "barn" }, want: wire.ReasonSignature, says: "barn"},
		{name: "another device's", bundle: theirs, release: two, want: wire.ReasonPlan, says: "none of its plans means this device (gate-1"},
		{name: "another release than the plan's", bundle: fresh, release: one, want: wire.ReasonPlan, says: "names release/gate/2; it brings release/gate/1"},
		{name: "no model", bundle: fresh, release: two, change: func(c *bundle.Content) { c.Blobs = c.Blobs[:2] }, want: wire.ReasonFetch},
		{name: "roles of another time", bundle: fresh, release: two, change: func(c *bundle.Content) { c.Metadata[3] = bundle.Metadata(old.Retained[3]) }, want: wire.ReasonMalformed},
		{name: "altered role", bundle: fresh, release: two, change: func(c *bundle.Content) {
			c.Metadata[2].Raw = bytes.Replace(c.Metadata[2].Raw, []byte("gate"), []byte("grate"), 1)
		}, want: wire.ReasonDigest},
		{name: "no metadata in it", bundle: fresh, release: two, change: func(c *bundle.Content) { c.Current = []byte("{}") }, want: wire.ReasonMalformed},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := handDevice(t, f, f.Time.Add(-24*time.Hour))
			if c.seen != nil {
				take(t, h, c.seen)
			}
			if c.later > 0 {
				h.a.opts.BuildTime = f.Time.Add(c.later)
				var err error
				if h.m.trust, err = trust.Open(trust.Options{Store: h.a.store, Root: h.root, BuildTime: h.a.opts.BuildTime}); err != nil {
					t.Fatal(err)
				}
			}
			from := f
			if c.fleet != nil {
				from = c.fleet
			}
			before := h.m.trust.Status()
			b, r := packed(t, from, c.bundle, c.release, c.change)
			target, err := h.Judge(b, r)
			refusal, _ := errors.AsType[*ota.Refusal](err)
			switch {
			case c.want == wire.ReasonNone && (err != nil || target.Release != c.release):
				t.Fatalf("%+v, %v", target, err)
			case c.want != wire.ReasonNone && (refusal == nil || refusal.Reason != c.want || !strings.Contains(refusal.Message, c.says)):
				t.Fatalf("%+v, %v; wanted %s", target, err, c.want)
			}
			if after := h.m.trust.Status(); after.Versions["timestamp"] != before.Versions["timestamp"] || after.Versions["rollouts"] != before.Versions["rollouts"] {
				t.Errorf("judging changed the device: %v, then %v", before.Versions, after.Versions)
			}
			if c.want == wire.ReasonNone {
				if s, err := h.Standing(target); s != inbox.Pending {
					t.Errorf("standing %v, %v", s, err)
				}
			}
		})
	}
}
