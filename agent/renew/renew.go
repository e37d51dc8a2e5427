// Package renew keeps the device's certificate from running out.
//
// After two thirds of its time the device sends a certificate request, signed
// with the key it enrolled with, over its session; the hub answers on the
// device's own topic (wire.Renew, wire.Certificate). What comes back is checked
// like an enrolment, stored in one piece, and only then shown to the broker, in
// a new session. The former certificate stays good: a lost answer, or a power
// cut at any moment, leaves the device with one or the other.
//
// # Time
//
// The device's clock may say anything, so it is not asked. Two others are, and
// the later one counts: the reference time of the update metadata, which the
// owner's roles have signed, and the hub's clock as it stands in its answers,
// counted on from there. A device that knows neither still hears from the hub
// that its certificate is due. Who forges such a word, or another time, makes
// the device ask, once in a while (askEvery): the answer to that is a certificate by
// the fleet's own root, or nothing.
package renew

import (
	"context"
	"crypto"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/wire"
)

// Session is the device's session with the broker; *link.Link is one.
type Session interface {
	// Publish returns when the broker has the message.
	Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error
	// Subscribe calls handle for every message that matches, now and in later
	// sessions.
	Subscribe(ctx context.Context, filter string, qos byte, handle func(topic string, payload []byte)) error
}

// Config is what a Renewer needs.
type Config struct {
	Dir      string // of the identity
	Identity enroll.Identity
	Key      crypto.Signer
	Session  Session
	Header   func() wire.Header
	// Now is the reference time; the zero time while it is not known. Never the
	// system clock.
	Now func() time.Time
	// Renewed takes the new certificate; the session begins again with it.
	Renewed func(tls.Certificate)
	Log     *slog.Logger
	// AskEvery is the least time between two requests; zero means a minute.
	AskEvery time.Duration
	// Look is how often the device looks at the time; zero means a minute.
	Look time.Duration
}

const (
	defaultAsk  = time.Minute
	defaultLook = time.Minute
	maxPause    = 6 * time.Hour // between requests that fail
	sendTimeout = 30 * time.Second
	dueShare    = 2.0 / 3
	jitterShare = 1.0 / 12 // of its life: when exactly differs from device to device
)

// Renewer renews one device's certificate.
type Renewer struct {
	cfg     Config
	id      enroll.Identity
	answers chan *wire.Certificate // cap 4; more at once are no use

	hub     time.Time // the hub's clock, when it last spoke
	heard   time.Time // when that was, by the monotonic clock
	asked   time.Time // by the monotonic clock
	pause   time.Duration
	wanted  bool      // the hub asks for it
	notTill time.Time // by the monotonic clock: within the hub's spread
}

// New makes a Renewer; Run runs it.
func New(c Config) *Renewer {
	if c.AskEvery <= 0 {
		c.AskEvery = defaultAsk
	}
	if c.Look <= 0 {
		c.Look = defaultLook
	}
	return &Renewer{cfg: c, id: c.Identity, answers: make(chan *wire.Certificate, 4), pause: c.AskEvery}
}

// Run renews until ctx ends, and then returns nil: no failure ends it. A
// subscription that the broker refuses is an error.
func (r *Renewer) Run(ctx context.Context) error {
	topic := wire.Topics{Fleet: r.id.Fleet}.Device(r.id.Device, wire.LeafCertificate)
	if err := r.cfg.Session.Subscribe(ctx, topic, 1, r.receive); err != nil && ctx.Err() == nil {
		return fmt.Errorf("renew: %w", err)
	}
	tick := time.NewTicker(r.cfg.Look)
	defer tick.Stop()
	for {
		wait := time.Until(r.notTill)
		var soon <-chan time.Time
		if r.wanted && wait > 0 {
			soon = time.After(wait)
		}
		select {
		case <-ctx.Done():
			return nil
		case c := <-r.answers:
			r.take(c)
		case <-tick.C:
		case <-soon:
		}
		if r.due() {
			r.ask(ctx)
		}
	}
}

// receive runs on the session's goroutine.
func (r *Renewer) receive(_ string, payload []byte) {
	c, err := wire.DecodeCertificate(payload)
	if err != nil {
		r.cfg.Log.Warn("message about the certificate refused", "error", err)
		return
	}
	select {
	case r.answers <- c:
	default:
	}
}

// now is the later of the clocks that may be asked; zero when neither knows.
func (r *Renewer) now() time.Time {
	now := r.cfg.Now()
	if !r.hub.IsZero() {
		if hub := r.hub.Add(time.Since(r.heard)); hub.After(now) {
			now = hub
		}
	}
	return now
}

// dueAt is when the certificate is to be renewed: after two thirds of its life,
// and a little later on one device than on another.
func dueAt(id enroll.Identity) time.Time {
	from, to := id.Life()
	life := float64(to.Sub(from))
	sum := sha256.Sum256([]byte(id.Device + from.String()))
	share := dueShare + jitterShare*float64(binary.BigEndian.Uint32(sum[:]))/(1<<32)
	return from.Add(time.Duration(life * share))
}

func (r *Renewer) due() bool {
	if !r.asked.IsZero() && time.Since(r.asked) < r.pause {
		return false
	}
	if r.wanted && !time.Now().Before(r.notTill) {
		return true
	}
	now := r.now()
	return !now.IsZero() && !now.Before(dueAt(r.id))
}

func (r *Renewer) ask(ctx context.Context) {
	csr, err := r.id.CertificateRequest(r.cfg.Key)
	if err == nil {
		topic := wire.Topics{Fleet: r.id.Fleet}.Device(r.id.Device, wire.LeafRenew)
		send, cancel := context.WithTimeout(ctx, sendTimeout)
		err = r.cfg.Session.Publish(send, topic, wire.Encode(wire.Renew{Header: r.cfg.Header(), CSR: csr}), 1, false)
		cancel()
	}
	if ctx.Err() != nil {
		return
	}
	r.asked = time.Now()
	r.pause = min(max(2*r.pause, r.cfg.AskEvery), maxPause) // until an answer comes
	if err != nil {
		r.pause = r.cfg.AskEvery // the session is away; it costs nobody anything
		r.cfg.Log.Warn("certificate could not be asked for", "error", err)
		return
	}
	r.cfg.Log.Info("certificate asked for", "ends", r.id.NotAfter())
}

// take looks at what the hub says.
func (r *Renewer) take(c *wire.Certificate) {
	if c.At > 0 {
		r.hub, r.heard = time.Unix(c.At, 0), time.Now()
	}
	switch {
	case len(c.Chain) > 0:
		r.install(c.Chain)
	case c.Error != "":
		r.wanted = false
		r.cfg.Log.Error("the hub refuses to renew the certificate", "reason", c.Error, "hint", c.Hint)
	case c.Renew && !r.wanted:
		r.wanted, r.pause = true, r.cfg.AskEvery
		r.notTill = time.Now()
		if c.Spread > 0 {
			r.notTill = r.notTill.Add(rand.N(time.Duration(c.Spread) * time.Second))
		}
	}
}

func (r *Renewer) install(chain [][]byte) {
	next, err := r.id.Renewed(chain, r.cfg.Key.Public())
	if errors.Is(err, enroll.ErrNotNewer) {
		r.wanted = false // the hub's clock says that it is early
		r.cfg.Log.Info("the hub gives no newer certificate yet", "ends", r.id.NotAfter())
		return
	}
	if err != nil {
		r.cfg.Log.Error("certificate refused", "error", err)
		return
	}
	cert, err := next.Certificate(r.cfg.Key)
	if err == nil {
		err = next.Save(r.cfg.Dir)
	}
	if err != nil {
		r.cfg.Log.Error("certificate could not be stored; the former one goes on", "error", err)
		return
	}
	r.id, r.wanted, r.pause = next, false, r.cfg.AskEvery
	r.cfg.Log.Info("certificate renewed", "ends", next.NotAfter())
	r.cfg.Renewed(cert)
}
