package renew

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const name = "cam-1"

// rig is a device with its renewer, and a hub that answers as it is told.
type rig struct {
	t     *testing.T
	a     *identity.Authority
	clock time.Time // the hub's
	dir   string
	id    enroll.Identity
	key   crypto.Signer

	mu      sync.Mutex
	handle  func(string, []byte)
	asked   int
	answer  func(csr []byte) *wire.Certificate // nil: none
	renewed []tls.Certificate
	fail    error
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{t: t, clock: time.Now(), dir: t.TempDir()}
	var err error
	if r.a, err = identity.Create(filepath.Join(t.TempDir(), "ca"), "yard", nil, identity.Options{Now: func() time.Time { return r.clock }}); err != nil {
		t.Fatal(err)
	}
	if r.key, err = enroll.SoftwareKey(r.dir); err != nil {
		t.Fatal(err)
	}
	r.id = enroll.Identity{V: 1, Device: name, Fleet: "yard", Broker: "hub.example:8883", CA: [][]byte{r.a.CA()}, RootJSON: []byte("{}")}
	csr, err := r.id.CertificateRequest(r.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.a.IssueDevice(name, csr)
	if err != nil {
		t.Fatal(err)
	}
	r.id.Chain = c.Chain
	if err := r.id.Save(r.dir); err != nil {
		t.Fatal(err)
	}
	r.answer = func(csr []byte) *wire.Certificate {
		c, err := r.a.Renew(name, csr)
		if err != nil {
			return &wire.Certificate{V: 1, At: r.clock.Unix(), Error: err.Error()}
		}
		return &wire.Certificate{V: 1, At: r.clock.Unix(), Chain: c.Chain}
	}
	return r
}

// Publish implements Session.
func (r *rig) Publish(_ context.Context, _ string, payload []byte, _ byte, _ bool) error {
	r.mu.Lock()
	r.asked++
	fail, answer := r.fail, r.answer
	r.mu.Unlock()
	if fail != nil {
		return fail
	}
	q, err := wire.DecodeRenew(payload)
	if err != nil {
		r.t.Error(err)
		return err
	}
	if c := answer(q.CSR); c != nil {
		r.say(c)
	}
	return nil
}

// Subscribe implements Session.
func (r *rig) Subscribe(_ context.Context, _ string, _ byte, handle func(string, []byte)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.handle = handle
	return nil
}

func (r *rig) say(c *wire.Certificate) {
	r.mu.Lock()
	h := r.handle
	r.mu.Unlock()
	h("", wire.Encode(c))
}

func (r *rig) counts() (asked, renewed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked, len(r.renewed)
}

// play runs the renewer for d of bubble time, with script in between.
func (r *rig) play(now func() time.Time, d time.Duration, script func()) {
	r.t.Helper()
	synctest.Test(r.t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		n := New(Config{
			Dir: r.dir, Identity: r.id, Key: r.key, Session: r, Now: now, Log: slog.New(slog.DiscardHandler),
			Header:  func() wire.Header { return wire.Header{V: 1, Boot: "b", Seq: 1} },
			Renewed: func(c tls.Certificate) { r.mu.Lock(); r.renewed = append(r.renewed, c); r.mu.Unlock() },
		})
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		synctest.Wait()
		if script != nil {
			script()
		}
		time.Sleep(d)
		synctest.Wait()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func (r *rig) stored() enroll.Identity {
	r.t.Helper()
	id, err := enroll.Load(r.dir)
	if err != nil {
		r.t.Fatal(err)
	}
	return id
}

func TestWhenItAsks(t *testing.T) {
	const day = 24 * time.Hour
	for what, row := range map[string]struct {
		age     time.Duration // by the reference time; negative: not known
		say     *wire.Certificate
		renewed bool
	}{
		"young":                               {age: 10 * day},
		"not yet two thirds":                  {age: 59 * day},
		"past two thirds and jitter":          {age: 68 * day, renewed: true},
		"long over":                           {age: 400 * day, renewed: true},
		"no clock":                            {age: -1},
		"no clock, the hub asks":              {age: -1, say: &wire.Certificate{V: 1, Renew: true}, renewed: true},
		"no clock, the hub asks for a moment": {age: -1, say: &wire.Certificate{V: 1, Renew: true, Spread: 300}, renewed: true},
		"1970 by its clock, the hub asks":     {age: 0, say: &wire.Certificate{V: 1, Renew: true}, renewed: true},
	} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			start := r.clock
			r.clock = start.Add(68 * day) // the hub knows better
			if row.age >= 0 && !row.renewed {
				r.clock = start.Add(row.age)
			}
			now := func() time.Time { return time.Time{} }
			if row.age >= 0 {
				now = func() time.Time { return start.Add(row.age) }
			}
			r.play(now, 10*time.Minute, func() {
				if row.say != nil {
					r.say(row.say)
				}
			})
			asked, renewed := r.counts()
			if (renewed == 1) != row.renewed || asked > 4 { // ever more seldom
				t.Errorf("asked %d times, renewed %d times", asked, renewed)
			}
			if later := r.stored().NotAfter().After(r.id.NotAfter()); later != row.renewed {
				t.Errorf("stored until %v, was %v", r.stored().NotAfter(), r.id.NotAfter())
			}
		})
	}
}

// The hub's time counts, once it was heard: a device whose reference time is
// frozen renews all the same.
func TestTimeOfTheHub(t *testing.T) {
	r := newRig(t)
	start := r.clock
	r.clock = start.Add(68 * 24 * time.Hour)
	r.play(func() time.Time { return start }, 5*time.Minute, func() { r.say(&wire.Certificate{V: 1, At: r.clock.Unix()}) })
	if _, renewed := r.counts(); renewed != 1 {
		t.Errorf("renewed %d times", renewed)
	}
}

// A hostile broker repeats what it has heard, and makes things up.
func TestForgedAnswers(t *testing.T) {
	r := newRig(t)
	old := r.id.Chain
	r.clock = r.clock.Add(68 * 24 * time.Hour)
	csr, err := r.id.CertificateRequest(r.key)
	if err != nil {
		t.Fatal(err)
	}
	next, err := r.a.Renew(name, csr)
	if err != nil {
		t.Fatal(err)
	}
	if r.id, err = r.id.Renewed(next.Chain, r.key.Public()); err != nil {
		t.Fatal(err)
	}
	if err := r.id.Save(r.dir); err != nil {
		t.Fatal(err)
	}
	stranger := newRig(t)
	r.answer = func([]byte) *wire.Certificate { return nil }
	before, err := os.ReadFile(filepath.Join(r.dir, "identity.json"))
	if err != nil {
		t.Fatal(err)
	}
	r.play(func() time.Time { return r.clock }, 24*time.Hour, func() {
		r.say(&wire.Certificate{V: 1, Chain: old})
		r.say(&wire.Certificate{V: 1, Chain: next.Chain})
		r.say(&wire.Certificate{V: 1, Chain: stranger.id.Chain})
		r.say(&wire.Certificate{V: 1, Chain: [][]byte{{1}}})
		r.handle("", []byte("junk"))
		r.say(&wire.Certificate{V: 1, At: 1 << 40})
		for range 1000 {
			r.say(&wire.Certificate{V: 1, Renew: true})
		}
	})
	after, err := os.ReadFile(filepath.Join(r.dir, "identity.json"))
	if err != nil || string(after) != string(before) {
		t.Errorf("the identity has changed, %v", err)
	}
	asked, renewed := r.counts()
	if renewed != 0 || asked == 0 || asked > 20 {
		t.Errorf("renewed %d times, asked %d times in a day", renewed, asked)
	}
}

// The session is away for hours: the device goes on asking, and gets it then.
func TestSessionAway(t *testing.T) {
	r := newRig(t)
	r.clock = r.clock.Add(68 * 24 * time.Hour)
	r.fail = errors.New("not connected")
	r.play(func() time.Time { return r.clock }, 2*time.Hour, func() {
		time.AfterFunc(time.Hour, func() { r.mu.Lock(); r.fail = nil; r.mu.Unlock() })
	})
	if _, renewed := r.counts(); renewed != 1 {
		t.Errorf("renewed %d times", renewed)
	}
	leaf, err := x509.ParseCertificate(r.renewed[0].Certificate[0])
	if err != nil || !leaf.NotAfter.Equal(r.stored().NotAfter()) {
		t.Errorf("shown is another than stored: %v", err)
	}
}

// A full disk: the former certificate goes on, and nothing is half written.
func TestNotStored(t *testing.T) {
	r := newRig(t)
	r.clock = r.clock.Add(68 * 24 * time.Hour)
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	r.play(func() time.Time { return r.clock }, time.Hour, nil)
	if asked, renewed := r.counts(); renewed != 0 || asked < 2 {
		t.Errorf("renewed %d times, asked %d times", renewed, asked)
	}
}
