package trust_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// device is a device's verifier with a store and a clock that can be moved.
type device struct {
	*trust.Client
	t     testing.TB
	store *memory
	root  []byte
	build time.Time
	up    time.Duration // since boot
	boot  string
}

// memory is a store whose disk can be full.
type memory struct {
	trust.Memory
	mu    sync.Mutex
	fail  error
	saves int
}

func (m *memory) SaveTrust(files map[string][]byte, floor []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	m.saves++
	return m.Memory.SaveTrust(files, floor)
}

func newDevice(t testing.TB, f *repo.Fleet) *device {
	t.Helper()
	d := &device{t: t, store: new(memory), root: f.Root(), build: repo.Start().AddDate(0, -1, 0), up: time.Hour, boot: "boot-1"}
	d.restart()
	return d
}

// restart starts the program again; the machine stays up.
func (d *device) restart() {
	d.t.Helper()
	c, err := trust.Open(trust.Options{
		Store: d.store, Root: d.root, BuildTime: d.build, BootID: d.boot,
		Boottime: func() time.Duration { return d.up },
	})
	if err != nil {
		d.t.Fatal(err)
	}
	d.Client = c
}

// reboot starts the machine again.
func (d *device) reboot(id string) {
	d.t.Helper()
	d.boot, d.up = id, 0
	d.restart()
}

// take offers a world and refreshes.
func (d *device) take(w *repo.World) error {
	return errors.Join(w.Offer(d), d.Refresh())
}

func (d *device) mustTake(w *repo.World) {
	d.t.Helper()
	if err := d.take(w); err != nil {
		d.t.Fatalf("a good world was refused: %v", err)
	}
	if got, want := d.Status().Versions["timestamp"], w.Version("timestamp"); got != want {
		d.t.Fatalf("timestamp %d is trusted after a good world with %d", got, want)
	}
}

// choice is the path of the release the device would run.
func (d *device) choice() string {
	d.t.Helper()
	o, err := d.Select("cam-1", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	if o == nil {
		return ""
	}
	return o.Path()
}

// story is a fleet with a device that runs release 1, and release 2 to come.
type story struct {
	*repo.Fleet
	dev *device
	one *repo.World // accepted
	two *repo.World // newer, not offered yet
}

func newStory(t testing.TB) *story {
	t.Helper()
	return storyOf(t, repo.New(t))
}

func storyOf(t testing.TB, f *repo.Fleet) *story {
	t.Helper()
	s := &story{Fleet: f, dev: newDevice(t, f)}
	f.Roll("first", 1, f.Release("gate", 1))
	s.one = f.Publish()
	s.dev.mustTake(s.one)
	f.Pass(time.Hour)
	s.dev.up += time.Hour
	f.Roll("second", 2, f.Release("gate", 2))
	s.two = f.Publish()
	return s
}

func TestReleaseReachesDevice(t *testing.T) {
	s := newStory(t)
	if got := s.dev.choice(); got != "release/gate/1" {
		t.Fatalf("selected %q", got)
	}
	s.dev.mustTake(s.two)
	o, err := s.dev.Select("cam-1", nil)
	if err != nil || o == nil {
		t.Fatal(o, err)
	}
	rel, err := o.Verify(s.Manifests[o.Path()])
	if err != nil {
		t.Fatal(err)
	}
	if m := rel.Manifest(); m.Model != "gate" || m.Version != 2 || rel.Order() != o || o.Plan().ID != "second" {
		t.Errorf("verified %s %d by plan %q", m.Model, m.Version, o.Plan().ID)
	}
	if want := wire.NewBlobRef(s.Manifests[o.Path()]); o.Ref().Digest != want.Digest || o.Ref().Size != want.Size {
		t.Errorf("reference %+v, want %+v", o.Ref(), want)
	}
	st := s.dev.Status()
	if !st.Fresh || st.Freshness() != "current" || st.Versions["root"] != 1 || st.Versions["models"] != 3 {
		t.Errorf("status %+v", st)
	}
}

func TestNothingOfferedIsNothingNew(t *testing.T) {
	s := newStory(t)
	saves := s.dev.store.saves
	for range 3 {
		if err := s.dev.Refresh(); err != nil {
			t.Fatal(err)
		}
		if err := s.dev.take(s.one); err != nil {
			t.Fatalf("the same again: %v", err)
		}
	}
	if s.dev.store.saves != saves {
		t.Errorf("%d writes for nothing new", s.dev.store.saves-saves)
	}
}

func TestPartsComeInAnyOrder(t *testing.T) {
	parts := func(w *repo.World) map[string]func(*device) error {
		m := map[string]func(*device) error{"current": func(d *device) error { return d.OfferCurrent(w.Current()) }}
		for _, role := range []string{"targets", "models", "rollouts"} {
			m[role] = func(d *device) error { return d.OfferRole(role, w.Version(role), w.Raw[role]) }
		}
		return m
	}
	for _, order := range [][]string{
		{"current", "models", "rollouts"}, {"rollouts", "models", "current"}, {"models", "current", "rollouts"},
	} {
		s := newStory(t)
		p := parts(s.two)
		for i, name := range order {
			if err := p[name](s.dev); err != nil {
				t.Fatal(err)
			}
			err := s.dev.Refresh()
			_, missing := errors.AsType[*trust.MissingError](err)
			if last := i == len(order)-1; last && err != nil || !last && err != nil && !missing {
				t.Fatalf("%v, after %s: %v", order, name, err)
			}
		}
		if got := s.dev.choice(); got != "release/gate/2" {
			t.Errorf("%v: selected %q", order, got)
		}
	}
}

func TestMissingPartIsNamed(t *testing.T) {
	s := newStory(t)
	s.two.Withhold = []string{"models"}
	err := s.dev.take(s.two)
	m, ok := errors.AsType[*trust.MissingError](err)
	if !ok || m.Role != "models" || m.Version != s.two.Version("models") {
		t.Fatalf("got %v", err)
	}
	if trust.Reason(err) != wire.ReasonNone {
		t.Errorf("waiting counts as %q", trust.Reason(err))
	}
	if got := s.dev.choice(); got != "release/gate/1" {
		t.Errorf("selected %q meanwhile", got)
	}
	if err := s.dev.OfferRole("models", m.Version, s.two.Raw["models"]); err != nil {
		t.Fatal(err)
	}
	if err := s.dev.Refresh(); err != nil {
		t.Fatal(err)
	}
}

func TestManifestIsCheckedAgainstWhatWasSigned(t *testing.T) {
	s := newStory(t)
	o, err := s.dev.Select("cam-1", nil)
	if err != nil {
		t.Fatal(err)
	}
	good := s.Manifests[o.Path()]
	flipped := append([]byte(nil), good...)
	flipped[len(flipped)/2] ^= 1
	for name, b := range map[string][]byte{
		"one bit": flipped, "cut": good[:len(good)-1], "longer": append(append([]byte(nil), good...), ' '), "empty": nil,
		"another release": s.Manifests["release/gate/2"],
	} {
		if _, err := o.Verify(b); !errors.Is(err, trust.ErrDigest) || trust.Reason(err) != wire.ReasonDigest {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := o.Verify(good); err != nil {
		t.Error(err)
	}
}

func TestHighestMatchingSerialWins(t *testing.T) {
	s := newStory(t)
	plan := func(id string, serial int64, release string, sel wire.Selector) wire.Plan {
		p := repo.Plan(id, serial, release)
		p.Selector = sel
		return p
	}
	s.SetPlans(
		plan("all", 3, "release/gate/1", wire.Selector{Threshold: wire.Whole}),
		plan("listed", 5, "release/gate/2", wire.Selector{Devices: []string{"cam-1"}}),
		plan("labelled", 4, "release/gate/2", wire.Selector{Labels: map[string]string{"site": "north"}}),
	)
	s.Pass(time.Minute)
	s.dev.mustTake(s.Publish())
	for _, c := range []struct {
		device string
		labels map[string]string
		want   string
	}{
		{"cam-1", nil, "listed"}, {"cam-2", nil, "all"}, {"cam-2", map[string]string{"site": "north"}, "labelled"},
		{"cam-2", map[string]string{"site": "south"}, "all"},
	} {
		o, err := s.dev.Select(c.device, c.labels)
		if err != nil || o == nil || o.Plan().ID != c.want {
			t.Errorf("%s %v: %v %v, want plan %s", c.device, c.labels, o, err, c.want)
		}
	}
	s.SetPlans(plan("nobody", 6, "release/gate/1", wire.Selector{Devices: []string{"other"}}))
	s.Pass(time.Minute)
	s.dev.mustTake(s.Publish())
	if o, err := s.dev.Select("cam-1", nil); o != nil || err != nil {
		t.Errorf("no plan matches, but %v %v", o, err)
	}
}

func TestSelectBeforeAnythingWasAccepted(t *testing.T) {
	d := newDevice(t, repo.New(t))
	if o, err := d.Select("cam-1", nil); o != nil || err != nil {
		t.Error(o, err)
	}
	if st := d.Status(); st.Fresh || len(st.Versions) != 1 {
		t.Errorf("status %+v", st)
	}
}

func TestOpenWithoutRoot(t *testing.T) {
	for name, root := range map[string][]byte{"none": nil, "junk": []byte("{}")} {
		if _, err := trust.Open(trust.Options{Store: new(trust.Memory), Root: root}); !errors.Is(err, trust.ErrNoRoot) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEveryKindHasAReason(t *testing.T) {
	for kind, want := range map[error]wire.Reason{
		trust.ErrSignature: wire.ReasonSignature, trust.ErrRollback: wire.ReasonRollback, trust.ErrExpired: wire.ReasonExpired,
		trust.ErrDigest: wire.ReasonDigest, trust.ErrMalformed: wire.ReasonMalformed, trust.ErrVersionSkip: wire.ReasonSequence,
		trust.ErrStore: wire.ReasonInternal, errors.New("else"): wire.ReasonInternal,
	} {
		if got := trust.Reason(kind); got != want {
			t.Errorf("%v is %q, want %q", kind, got, want)
		}
	}
	if trust.Reason(nil) != wire.ReasonNone {
		t.Error("nil has a reason")
	}
}
