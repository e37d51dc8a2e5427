package cloud

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/registry"
)

const (
	renewalEvery = 30 * time.Second // a device may ask so often, after a burst
	renewalBurst = 3
	maxRenewers  = 1 << 14 // devices whose pace is remembered

	maintainEvery = time.Minute
	rotatedEvery  = 2 * time.Second  // how soon a hub notices that its hub CA was replaced
	overdueEvery  = 10 * time.Minute // how often it looks for devices that should have asked
	askPerSecond  = 20               // renewals a hub wants to see in a second
)

// renewals answers devices that renew their certificates, and asks those whose
// time has come: they may not know what time it is, or that the hub CA was
// replaced.
type renewals struct {
	hub *Hub

	mu    sync.Mutex
	paces map[string]*rate.Limiter
}

func newRenewals(h *Hub) *renewals { return &renewals{hub: h, paces: map[string]*rate.Limiter{}} }

func (r *renewals) allow(device string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := r.paces[device]
	if l == nil {
		if len(r.paces) >= maxRenewers {
			clear(r.paces) // bounded memory matters more than old sins
		}
		l = rate.NewLimiter(rate.Every(renewalEvery), renewalBurst)
		r.paces[device] = l
	}
	return l.Allow()
}

// answer takes a wire.Renew. The device is that of the topic: its certificate's
// name, if the broker is honest. If it is not, the key tells: only the one the
// device enrolled with gets anything.
func (r *renewals) answer(ctx context.Context, device string, payload []byte) {
	if !r.allow(device) {
		r.hub.log.Warn("renewal refused: too many", "device", device)
		return
	}
	q, err := wire.DecodeRenew(payload)
	if err != nil {
		r.hub.log.Warn("renewal refused", "device", device, "error", err)
		return
	}
	out := wire.Certificate{V: wire.Version, At: time.Now().Unix()}
	c, err := r.renew(ctx, device, q.CSR)
	if err != nil {
		r.hub.log.Warn("renewal refused", "device", device, "error", err)
		out.Error, out.Hint = refusalOf(err)
	} else {
		out.Chain = c.Chain
		r.hub.log.Info("certificate renewed", "device", device, "serial", c.Serial, "ends", c.NotAfter)
	}
	r.send(ctx, device, out)
}

func (r *renewals) renew(ctx context.Context, device string, csr []byte) (identity.Issued, error) {
	f := r.hub.fleet
	d, err := f.Registry.Device(ctx, device)
	if err != nil {
		return identity.Issued{}, err
	}
	if f.Authority.Revoked(d.Cert.Serial) {
		return identity.Issued{}, identity.ErrRevoked
	}
	c, err := f.Authority.Renew(device, csr)
	if err != nil || c.Serial == d.Cert.Serial {
		return c, err
	}
	// The former certificate is not revoked: the device has it until this one
	// has arrived, and it ends by itself.
	_, err = members{f.Registry}.AddDevice(ctx, c)
	return c, err
}

// refusalOf is what a device is told; what it need not know stays in the log.
func refusalOf(err error) (text, hint string) {
	switch {
	case errors.Is(err, identity.ErrRevoked):
		return "the device is revoked", "enrol it anew with a token of drover devices replace"
	case errors.Is(err, identity.ErrOtherKey), errors.Is(err, identity.ErrNotMember), errors.Is(err, registry.ErrNotFound):
		return "the key is not the one this device enrolled with", "enrol it anew with a token of drover devices replace"
	case errors.Is(err, identity.ErrCSR), errors.Is(err, identity.ErrName):
		return "the request is not well formed", "device and hub may be of different versions"
	}
	return "the hub could not do it", "see the hub's log"
}

func (r *renewals) send(ctx context.Context, device string, c wire.Certificate) {
	topic := wire.Topics{Fleet: r.hub.fleet.Settings.Fleet}.Device(device, wire.LeafCertificate)
	if err := r.hub.session.Publish(ctx, topic, wire.Encode(c), 1, false); err != nil && ctx.Err() == nil {
		r.hub.log.Warn("answer about a certificate not sent", "device", device, "error", err) // it asks again
	}
}

// arrived looks at a device that has just come online.
func (r *renewals) arrived(ctx context.Context, device string, payload []byte) {
	var on wire.Online
	if wire.Decode(payload, wire.MaxMessage, &on) != nil || !on.Online {
		return
	}
	r.remind(ctx, device, time.Second)
}

// remind asks a device to renew if its time has come.
func (r *renewals) remind(ctx context.Context, device string, spread time.Duration) {
	due, err := r.hub.fleet.Authority.Due(device)
	if err != nil {
		r.hub.log.Warn("ledger of certificates", "device", device, "error", err)
	}
	if due {
		r.send(ctx, device, wire.Certificate{V: wire.Version, At: time.Now().Unix(), Renew: true, Spread: int64(spread / time.Second)})
	}
}

// run keeps the hub's own certificates, and reminds devices.
func (r *renewals) run(ctx context.Context) error {
	f := r.hub.fleet
	var maintained, reminded time.Time
	generation := f.Authority.Generation()
	tick := time.NewTicker(rotatedEvery)
	defer tick.Stop()
	for {
		now := time.Now()
		if now.Sub(maintained) >= maintainEvery {
			maintained = now
			r.hub.problem("certificates", f.Authority.Maintain())
		}
		if g := f.Authority.Generation(); g != generation {
			r.hub.log.Info("the hub CA was replaced; devices are asked to renew", "serial", g)
			generation, reminded = g, time.Time{}
		}
		if now.Sub(reminded) >= overdueEvery {
			reminded = now
			r.remindAll(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// remindAll reminds those that are connected, so that not all ask at once.
func (r *renewals) remindAll(ctx context.Context) {
	online := true
	all, err := r.hub.fleet.Registry.Devices(ctx, registry.DeviceFilter{Online: &online})
	if err != nil {
		r.hub.log.Warn("devices whose certificates are due", "error", err)
		return
	}
	spread := min(time.Duration(len(all)/askPerSecond)*time.Second, wire.MaxSpread)
	for _, d := range all {
		if ctx.Err() != nil {
			return
		}
		r.remind(ctx, d.ID, spread)
	}
}
