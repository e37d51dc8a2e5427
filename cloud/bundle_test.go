package cloud

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/ota/bundle"
)

// bundled writes a bundle of a release that is rolled out to everybody.
func bundled(t *testing.T, f *Fleet, release string, now time.Time) []byte {
	t.Helper()
	b, err := f.Bundle(t.Context(), BundleOptions{Release: release, Valid: 2 * time.Hour, Now: now})
	if err != nil {
		t.Fatal(err)
	}
	var raw bytes.Buffer
	if n, err := b.WriteTo(&raw); err != nil || n != b.Head.Size || n != int64(raw.Len()) {
		t.Fatalf("%d bytes of %d: %v", n, b.Head.Size, err)
	}
	return raw.Bytes()
}

// A bundle's timestamp holds for as long as asked, is not what the hub publishes,
// and is older than what it publishes next.
func TestBundleCarriesItsOwnTimestamp(t *testing.T) {
	f := testFleet(t)
	_, _, m := released(t, f)
	if _, err := f.Bundle(t.Context(), BundleOptions{Release: m.Path(), Now: time.Now()}); !errors.Is(err, ErrNoPlan) {
		t.Fatalf("without a plan: %v", err)
	}
	if _, err := f.StartRollout(t.Context(), RolloutOptions{Release: m.Path()}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	raw := bundled(t, f, m.Path(), now)
	b, err := bundle.Read(bytes.NewReader(raw), int64(len(raw)))
	if err != nil {
		t.Fatal(err)
	}
	if d := time.Unix(b.Head.Expires, 0).Sub(now); d > 2*time.Hour || d < 2*time.Hour-2*time.Second {
		t.Errorf("good for %v", d)
	}
	p, err := publish.Published(t.Context(), f.Repo())
	if err != nil {
		t.Fatal(err)
	}
	if p.Versions["timestamp"] <= b.Timestamp() || b.Timestamp() == 0 || bytes.Equal(p.Current, b.Current) {
		t.Errorf("the hub publishes timestamp %d, the bundle has %d", p.Versions["timestamp"], b.Timestamp())
	}
	if h := p.Expires.Sub(now); h < 23*time.Hour || h > 25*time.Hour {
		t.Errorf("the hub's own holds for %v", h)
	}
	if again := bundled(t, f, m.Path(), time.Now()); len(again) != len(raw) {
		t.Error("a second bundle in the same moment differs in size")
	}
	if _, err := f.Bundle(t.Context(), BundleOptions{Release: m.Path(), Base: m.Path(), Now: now}); !errors.Is(err, ErrNoDelta) {
		t.Errorf("without a delta: %v", err)
	}
}

func TestVerifyBundle(t *testing.T) {
	f := testFleet(t)
	_, _, m := released(t, f)
	if _, err := f.StartRollout(t.Context(), RolloutOptions{Release: m.Path()}); err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	good := bundled(t, f, m.Path(), now)
	b, err := bundle.Read(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) int { // where an entry's bytes begin
		i := bytes.Index(good, append([]byte(name), 0))
		if i < 0 {
			t.Fatal(name)
		}
		return i + 512
	}
	off, _, _ := b.Blob(m.Variants[0].Model.Digest)
	root, _, err := f.Repo().Latest(t.Context(), wire.RoleRoot)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		flip  int // byte that is changed; 0: none
		later time.Duration
		link  string // where it breaks; "": nowhere
		says  string
	}{
		{"whole", 0, 0, "", ""},
		{"cut", -1, 0, "file", "not whole"},
		{"model", int(off) + 9, 0, "blob", "damaged"},
		{"head", at("drover-bundle") + 2, 0, "file", "malformed"},
		{"root", at("root.1.json") + 40, 0, "root", "another fleet"},
		{"models", at("models.2.json") + 300, 0, "models", ""},
		{"timestamp expired", 0, 3 * time.Hour, "device", "(expired)"},
		{"rollouts expired", 0, 8 * 24 * time.Hour, "rollouts", "past its expiry"},
		{"root expired", 0, 366 * 24 * time.Hour, "root", "past its expiry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			raw := bytes.Clone(good)
			switch {
			case c.flip < 0:
				raw = raw[:len(raw)-100]
			case c.flip > 0:
				raw[c.flip] ^= 1
			}
			for _, verify := range []func() (Verification, error){
				func() (Verification, error) {
					return VerifyBundle(t.Context(), bytes.NewReader(raw), int64(len(raw)), root, now.Add(c.later))
				},
				func() (Verification, error) {
					return f.VerifyBundle(t.Context(), bytes.NewReader(raw), int64(len(raw)), now.Add(c.later))
				},
			} {
				v, err := verify()
				if err != nil {
					t.Fatal(err)
				}
				last := v.Links[len(v.Links)-1]
				if v.OK != (c.link == "") || c.link != "" && (last.Name != c.link || last.OK || !strings.Contains(last.Detail, c.says)) {
					t.Errorf("%+v", v)
				}
			}
		})
	}
}
