package publish_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// device opens a verifier that stands still in time but for timestamps.
func device(t *testing.T, f *repo.Fleet) *trust.Client {
	t.Helper()
	c, err := trust.Open(trust.Options{Store: new(trust.Memory), Root: f.Root(), Boottime: func() time.Duration { return 0 }})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// deliver is what a broker with the publication retained does.
func deliver(t *testing.T, c *trust.Client, p *publish.Publication) error {
	t.Helper()
	for _, m := range p.Retained {
		if err := c.OfferRole(m.Role, m.Version, m.Raw); err != nil {
			return err
		}
	}
	if err := c.OfferCurrent(p.Current); err != nil {
		return err
	}
	return c.Refresh()
}

func publishNow(t *testing.T, f *repo.Fleet) *publish.Publication {
	t.Helper()
	p, err := publish.Publish(t.Context(), f, f.Keys["snapshot"], f.Keys["timestamp"], f.Time)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFromNothingToARelease(t *testing.T) {
	f := repo.New(t)
	dev := device(t, f)
	first, err := publish.Published(t.Context(), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, dev, first); err != nil {
		t.Fatalf("the first publication of an empty fleet: %v", err)
	}
	if o, err := dev.Select("cam-1", nil); o != nil || err != nil {
		t.Fatalf("an empty fleet offers %v, %v", o, err)
	}
	path := f.Release("gate", 1)
	f.Roll("first", 1, path)
	if got, err := publish.Published(t.Context(), f); err != nil || !bytes.Equal(got.Current, first.Current) {
		t.Errorf("something reached the broker before Publish: %v", err)
	}
	f.Pass(time.Minute)
	p := publishNow(t, f)
	if err := deliver(t, dev, p); err != nil {
		t.Fatal(err)
	}
	o, err := dev.Select("cam-1", nil)
	if err != nil || o == nil || o.Path() != path {
		t.Fatalf("selected %v, %v", o, err)
	}
	if _, err := o.Verify(f.Manifests[path]); err != nil {
		t.Error(err)
	}
	again, err := publish.Published(t.Context(), f)
	if err != nil || !bytes.Equal(again.Current, p.Current) || len(again.Retained) != len(p.Retained) {
		t.Errorf("a hub that starts anew would retain something else: %v", err)
	}
}

func TestInitRefuses(t *testing.T) {
	good := func() publish.Keys {
		k, err := publish.Generate()
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		fleet string
		keys  func() publish.Keys
		need  map[string]int
		want  error
	}{
		{"a fleet name with a slash", "a/b", good, nil, publish.ErrInvalid},
		{"no key of a role", "demo", func() publish.Keys { k := good(); delete(k, "models"); return k }, nil, publish.ErrKeys},
		{"fewer keys than the threshold", "demo", good, map[string]int{"root": 2}, publish.ErrKeys},
		{"one key twice for a threshold of two", "demo", func() publish.Keys {
			k := good()
			k["root"] = append(k["root"], k["root"][0])
			return k
		}, map[string]int{"root": 2}, publish.ErrKeys},
		{"a key that is offline and online", "demo", func() publish.Keys { k := good(); k["models"] = k["rollouts"]; return k }, nil, publish.ErrKeys},
		{"an ECDSA key", "demo", func() publish.Keys { k := good(); k["targets"] = []crypto.Signer{ec}; return k }, nil, publish.ErrKeys},
	} {
		var m repo.Memory
		_, err := publish.Init(t.Context(), &m, c.keys(), publish.InitOptions{Fleet: c.fleet, Now: repo.Start(), Thresholds: c.need})
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if _, v, _ := m.Latest(t.Context(), "root"); v != 0 {
			t.Errorf("%s: root version %d was stored", c.name, v)
		}
	}
	f := repo.New(t)
	if _, err := publish.Init(t.Context(), f, f.Keys, publish.InitOptions{Fleet: "demo", Now: f.Time}); !errors.Is(err, publish.ErrExists) {
		t.Errorf("a second time: %v", err)
	}
}

func TestBeforeInit(t *testing.T) {
	var m repo.Memory
	ctx, k := t.Context(), []crypto.Signer{repo.Key(t)}
	for name, err := range map[string]error{
		"release":   second(publish.AddRelease(ctx, &m, k, repo.Manifest("gate", 1), repo.Start())),
		"plans":     publish.SetPlans(ctx, &m, k, nil, repo.Start()),
		"publish":   second(publish.Publish(ctx, &m, k, k, repo.Start())),
		"published": second(publish.Published(ctx, &m)),
		"renew":     second(publish.Renew(ctx, &m, nil, repo.Start())),
	} {
		if !errors.Is(err, publish.ErrNoFleet) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReleaseNeverChanges(t *testing.T) {
	f := repo.New(t)
	path := f.Release("gate", 1)
	_, before, _ := f.Latest(t.Context(), "models")
	if got, err := publish.AddRelease(t.Context(), f, f.Keys["models"], f.Manifests[path], f.Time); err != nil || got != path {
		t.Errorf("the same bytes again: %v", err)
	}
	if _, after, _ := f.Latest(t.Context(), "models"); after != before {
		t.Errorf("the same bytes made version %d of %d", after, before)
	}
	other := bytes.Replace(f.Manifests[path], []byte(`"epoch":0`), []byte(`"epoch":1`), 1)
	if bytes.Equal(other, f.Manifests[path]) {
		t.Fatal("nothing replaced")
	}
	if _, err := publish.AddRelease(t.Context(), f, f.Keys["models"], other, f.Time); !errors.Is(err, publish.ErrExists) {
		t.Errorf("other bytes: %v", err)
	}
	if _, err := publish.AddRelease(t.Context(), f, f.Keys["models"], []byte("{}"), f.Time); !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("no manifest: %v", err)
	}
}

func TestWrongKeysAreNoticedAtOnce(t *testing.T) {
	f := repo.New(t)
	path := f.Release("gate", 1)
	stranger := []crypto.Signer{repo.Key(t)}
	ctx := t.Context()
	for name, err := range map[string]error{
		"models":    second(publish.AddRelease(ctx, f, stranger, repo.Manifest("gate", 2), f.Time)),
		"rollouts":  publish.SetPlans(ctx, f, stranger, []wire.Plan{repo.Plan("x", 1, path)}, f.Time),
		"no key":    publish.SetPlans(ctx, f, nil, []wire.Plan{repo.Plan("x", 1, path)}, f.Time),
		"hub's key": second(publish.AddRelease(ctx, f, f.Keys["rollouts"], repo.Manifest("gate", 2), f.Time)),
		"root":      publish.RotateRoot(ctx, f, stranger, nil, nil, f.Time),
		"targets":   publish.Delegate(ctx, f, stranger, f.Keys, nil, f.Time),
	} {
		if !errors.Is(err, publish.ErrKeys) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, keys := range map[string][2][]crypto.Signer{
		"snapshot": {stranger, f.Keys["timestamp"]}, "timestamp": {f.Keys["snapshot"], stranger},
	} {
		_, v, _ := f.Latest(ctx, "timestamp")
		if _, err := publish.Publish(ctx, f, keys[0], keys[1], f.Time); !errors.Is(err, trust.ErrSignature) {
			t.Errorf("%s: %v", name, err)
		}
		if _, after, _ := f.Latest(ctx, "timestamp"); after != v {
			t.Errorf("%s: what no device takes was stored", name)
		}
	}
}

func TestPlansAreChecked(t *testing.T) {
	f := repo.New(t)
	path := f.Release("gate", 1)
	many := func(n int) []wire.Plan {
		var ps []wire.Plan
		for i := range n {
			ps = append(ps, repo.Plan(fmt.Sprintf("p%d", i), int64(i+1), path))
		}
		return ps
	}
	long := many(wire.MaxPending)
	for i := range long {
		for d := range wire.MaxListed {
			long[i].Selector.Devices = append(long[i].Selector.Devices, fmt.Sprintf("%063d", d))
		}
	}
	for _, c := range []struct {
		name  string
		plans []wire.Plan
		want  error
	}{
		{"none", nil, nil},
		{"as many as allowed", many(wire.MaxPending), nil},
		{"one more", many(wire.MaxPending + 1), publish.ErrTooLarge},
		{"too many bytes", long, publish.ErrTooLarge},
		{"a release nobody signed", []wire.Plan{repo.Plan("x", 1, "release/gate/2")}, publish.ErrUnsigned},
		{"an id twice", []wire.Plan{repo.Plan("x", 1, path), repo.Plan("x", 2, path)}, publish.ErrInvalid},
		{"a serial twice", []wire.Plan{repo.Plan("x", 1, path), repo.Plan("y", 1, path)}, publish.ErrInvalid},
		{"no serial", []wire.Plan{repo.Plan("x", 0, path)}, publish.ErrInvalid},
	} {
		if err := publish.SetPlans(t.Context(), f, f.Keys["rollouts"], c.plans, f.Time); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	plans, err := publish.Plans(t.Context(), f)
	if err != nil || len(plans) != wire.MaxPending {
		t.Errorf("%d plans are open, %v", len(plans), err)
	}
	f.Pass(time.Minute)
	if err := deliver(t, device(t, f), publishNow(t, f)); err != nil {
		t.Errorf("as many plans as allowed: %v", err)
	}
}

// Releases add up until models is full; the error says what to do, and doing
// it helps.
func TestModelsFillUp(t *testing.T) {
	f := repo.New(t)
	ctx := t.Context()
	// Signing hundreds one by one takes long; most of them come at once.
	first := f.Release("gate", 1)
	paths := []string{first}
	raw, version, err := f.Latest(ctx, "models")
	if err != nil {
		t.Fatal(err)
	}
	raw = repo.Resign(t, raw, f.Keys["models"], func(fields repo.Fields) {
		targets := fields["targets"].(map[string]any)
		for v := 2; v <= 790; v++ {
			paths = append(paths, wire.ReleasePath("gate", v))
			targets[paths[v-1]] = targets[first]
		}
		fields["version"] = version + 1
	})
	if err := f.Append(ctx, publish.Metadata{Role: "models", Version: version + 1, Raw: raw}); err != nil {
		t.Fatal(err)
	}
	for v := 791; err == nil && v < 5000; v++ {
		var path string
		if path, err = publish.AddRelease(ctx, f, f.Keys["models"], repo.Manifest("gate", v), f.Time); err == nil {
			paths = append(paths, path)
		}
	}
	if !errors.Is(err, publish.ErrTooLarge) || !strings.Contains(err.Error(), "retire") || len(paths) < 791 {
		t.Fatalf("after %d releases: %v", len(paths), err)
	}
	t.Logf("%d releases fit", len(paths))
	f.Pass(time.Minute)
	if err := deliver(t, device(t, f), publishNow(t, f)); err != nil {
		t.Errorf("the largest models: %v", err)
	}
	last := paths[len(paths)-1]
	f.Roll("x", 1, last)
	if err := publish.RetireReleases(ctx, f, f.Keys["models"], []string{last}, f.Time); !errors.Is(err, publish.ErrExists) {
		t.Errorf("retired what a plan names: %v", err)
	}
	if err := publish.RetireReleases(ctx, f, f.Keys["models"], paths[:10], f.Time); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.AddRelease(ctx, f, f.Keys["models"], repo.Manifest("gate", 5000), f.Time); err != nil {
		t.Error(err)
	}
	left, err := publish.Releases(ctx, f)
	if err != nil || len(left) != len(paths)-9 {
		t.Errorf("%d releases, %v", len(left), err)
	}
}

func TestRotation(t *testing.T) {
	f := repo.New(t)
	ctx := t.Context()
	f.Roll("first", 1, f.Release("gate", 1))
	dev := device(t, f)
	if err := deliver(t, dev, publishNow(t, f)); err != nil {
		t.Fatal(err)
	}
	fresh, err := publish.Generate()
	if err != nil {
		t.Fatal(err)
	}
	f.Pass(time.Hour)
	next := publish.Keys{}
	for _, role := range []string{"root", "targets", "snapshot", "timestamp"} {
		next[role] = fresh[role]
	}
	if err := publish.RotateRoot(ctx, f, f.Keys["root"], publish.Keys{"models": fresh["models"]}, nil, f.Time); !errors.Is(err, publish.ErrInvalid) {
		t.Errorf("a delegated role in root: %v", err)
	}
	if err := publish.RotateRoot(ctx, f, f.Keys["root"], next, nil, f.Time); err != nil {
		t.Fatal(err)
	}
	if _, err := publish.Publish(ctx, f, fresh["snapshot"], fresh["timestamp"], f.Time); !errors.Is(err, trust.ErrSignature) {
		t.Errorf("published before targets was signed with its new key: %v", err)
	}
	if err := publish.Delegate(ctx, f, fresh["targets"], fresh, nil, f.Time); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"models", "rollouts"} {
		if err := publish.Resign(ctx, f, role, fresh[role], f.Time); err != nil {
			t.Fatal(err)
		}
	}
	f.Keys = fresh // every key of the fleet is another one now
	p := publishNow(t, f)
	if err := deliver(t, dev, p); err != nil {
		t.Fatal(err)
	}
	if o, err := dev.Select("cam-1", nil); err != nil || o == nil || o.Path() != "release/gate/1" {
		t.Errorf("selected %v, %v", o, err)
	}
	if err := deliver(t, device(t, f), p); err != nil {
		t.Errorf("a new device with the first root: %v", err)
	}
}

// A repository that fails leaves the last publication as it was.
func TestRepoFails(t *testing.T) {
	f := repo.New(t)
	before := publishNow(t, f)
	broken := &failing{Memory: &f.Memory}
	if _, err := publish.Publish(t.Context(), broken, f.Keys["snapshot"], f.Keys["timestamp"], f.Time); !errors.Is(err, errDisk) {
		t.Errorf("answered %v", err)
	}
	if now, err := publish.Published(t.Context(), f); err != nil || !bytes.Equal(now.Current, before.Current) {
		t.Errorf("published is something else now: %v", err)
	}
}

var errDisk = errors.New("disk full")

type failing struct{ *repo.Memory }

func (*failing) Append(context.Context, ...publish.Metadata) error { return errDisk }
