package cloud

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/cloud/rollout"
)

const (
	publishEvery  = 250 * time.Millisecond // how often the hub looks for what others wrote
	renewEvery    = time.Minute            // how often it looks for what expires
	leaseName     = "publisher"
	leaseFor      = 15 * time.Second
	resignWithin  = 2 * time.Second
	keepOldTrust  = 3 // versions of a role that stay retained, for devices that are just reading
	keepTimestamp = 100
)

// publisher keeps what the broker retains in step with the registry. Of several
// hubs only the one with the lease signs.
type publisher struct {
	hub    *Hub
	holder string
	lease  registry.Lease // the last one taken
	seen   int64          // change counter of the last round
	renew  time.Time
	last   *publish.Publication
	out    map[string]int64 // role → newest version on the broker
	again  chan struct{}    // cap 1: the broker may lack something, or have something else

	mu     sync.Mutex
	expect map[string]string // topic → digest of what was published there
}

func newPublisher(ctx context.Context, h *Hub) (*publisher, error) {
	p := &publisher{hub: h, holder: rand.Text(), seen: -1, out: map[string]int64{}, again: make(chan struct{}, 1), expect: map[string]string{}}
	_, err := p.keys(ctx) // a hub that cannot sign says so at once
	return p, err
}

// keys are the hub's keys that count now; they may be exchanged while it runs.
func (p *publisher) keys(ctx context.Context) (publish.Keys, error) {
	keys := publish.Keys{}
	for _, role := range publish.Roles() {
		if !publish.Online(role) {
			continue
		}
		var err error
		if keys[role], err = p.hub.fleet.signers(ctx, role, ""); err != nil {
			return nil, err
		}
	}
	return keys, nil
}

// run publishes until ctx ends.
func (p *publisher) run(ctx context.Context) error {
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	again := false // stays until a round has succeeded
	for {
		select {
		case <-ctx.Done():
			return p.resign(ctx)
		case <-p.again:
			again = true
		case <-tick.C:
		}
		err := p.round(ctx, again)
		switch {
		case err == nil:
			again = false
		case ctx.Err() != nil:
		case errors.Is(err, registry.ErrLeaseHeld):
			p.seen = -1
		default:
			p.seen = -1 // try again
			p.hub.problem("publish", err)
		}
	}
}

// resign gives the lease back, so that the next hub need not wait for its end.
func (p *publisher) resign(ctx context.Context) error {
	if p.lease.Name == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), resignWithin)
	defer cancel()
	return p.hub.fleet.Registry.ReleaseLease(ctx, p.lease)
}

// round signs what is to be signed and sends what the broker lacks.
func (p *publisher) round(ctx context.Context, again bool) error {
	reg := p.hub.fleet.Registry
	n, err := reg.ChangeCounter(ctx, registry.AreaMetadata, registry.AreaRollouts, registry.AreaReleases)
	if err != nil {
		return err
	}
	now := time.Now()
	if n == p.seen && !again && now.Before(p.renew) {
		return nil
	}
	lease, err := reg.AcquireLease(ctx, leaseName, p.holder, leaseFor)
	if err != nil {
		return err
	}
	p.lease = lease
	before := p.owners(ctx)
	if p.last, err = p.sign(ctx, repo{reg, &lease}, now); err != nil {
		if p.owners(ctx) != before { // keys were exchanged in the middle of it
			p.seen = -1
			return nil
		}
		return err
	}
	if err := p.send(ctx, again); err != nil {
		return err
	}
	// What this round wrote itself is no news for the next one.
	if n, err = reg.ChangeCounter(ctx, registry.AreaMetadata, registry.AreaRollouts, registry.AreaReleases); err == nil {
		p.seen = n
	}
	p.renew = now.Add(renewEvery)
	p.hub.problem("publish", nil)
	p.hub.problem("keys", p.hub.fleet.due(ctx, now))
	if _, err := reg.PruneMetadata(ctx, "timestamp", keepTimestamp); err != nil {
		return err
	}
	return err
}

// owners are the versions of what says which keys count.
func (p *publisher) owners(ctx context.Context) (v [2]int64) {
	for i, role := range []string{wire.RoleRoot, wire.RoleTargets} {
		_, n, err := p.hub.fleet.Repo().Latest(ctx, role)
		if err != nil {
			return v // told by whoever reads it next
		}
		v[i] = n
	}
	return v
}

// sign brings plans, snapshot and timestamp up to date.
func (p *publisher) sign(ctx context.Context, r repo, now time.Time) (*publish.Publication, error) {
	keys, err := p.keys(ctx)
	if err != nil {
		return nil, err
	}
	all, err := openPlans(ctx, p.hub.fleet.Registry)
	if err != nil {
		return nil, err
	}
	want, gone, err := p.hub.fleet.signable(ctx, all)
	if err != nil {
		return nil, err
	}
	if gone != nil { // a models key was revoked
		err = fmt.Errorf("cloud: not offered to devices, for models does not sign the release any more: rollout %s; end it with drover rollout abort", strings.Join(gone, ", "))
	}
	p.hub.problem("rollouts", err)
	have, err := publish.Plans(ctx, r)
	if err != nil {
		return nil, err
	}
	if !slices.EqualFunc(want, have, func(a, b wire.Plan) bool { return string(wire.Encode(a)) == string(wire.Encode(b)) }) {
		if err := publish.SetPlans(ctx, r, keys[wire.RoleRollouts], want, now); err != nil {
			return nil, err
		}
	}
	// After a change of keys.
	if ok, err := publish.Accepted(ctx, r, wire.RoleRollouts); err != nil {
		return nil, err
	} else if !ok {
		if err := publish.Resign(ctx, r, wire.RoleRollouts, keys[wire.RoleRollouts], now); err != nil {
			return nil, err
		}
	}
	current, err := publish.Published(ctx, r)
	if err != nil {
		return nil, err
	}
	for _, role := range []string{wire.RoleRoot, wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		_, v, err := r.Latest(ctx, role)
		if err != nil {
			return nil, err
		}
		if v != current.Versions[role] {
			return publish.Publish(ctx, r, keys["snapshot"], keys["timestamp"], now)
		}
	}
	renewed, err := publish.Renew(ctx, r, keys, now)
	if renewed != nil || err != nil {
		return renewed, err
	}
	return current, nil
}

// send puts on the broker what it lacks: first what current names, then
// current, then it clears what nobody needs any more.
func (p *publisher) send(ctx context.Context, again bool) error {
	topics := wire.Topics{Fleet: p.hub.fleet.Settings.Fleet}
	for _, m := range p.last.Retained {
		if !again && m.Version <= p.out[m.Role] {
			continue
		}
		if err := p.retain(ctx, topics.TrustRole(m.Role, m.Version), m.Raw); err != nil {
			return err
		}
	}
	if again || p.last.Versions["timestamp"] != p.out["timestamp"] {
		if err := p.retain(ctx, topics.TrustCurrent(), p.last.Current); err != nil {
			return err
		}
	}
	for _, role := range []string{wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		for v := max(1, p.out[role]-keepOldTrust); v <= p.last.Versions[role]-keepOldTrust; v++ {
			if err := p.retain(ctx, topics.TrustRole(role, v), nil); err != nil {
				return err
			}
		}
	}
	for role, v := range p.last.Versions {
		p.out[role] = v
	}
	return nil
}

func (p *publisher) retain(ctx context.Context, topic string, payload []byte) error {
	p.mu.Lock()
	p.expect[topic] = wire.NewBlobRef(payload).Digest
	p.mu.Unlock()
	return p.hub.session.Publish(ctx, topic, payload, 1, true)
}

// restore has everything published again.
func (p *publisher) restore() {
	select {
	case p.again <- struct{}{}:
	default:
	}
}

// witness sees what stands on the trust topics. What the hub did not put there
// is overwritten: devices refuse it anyway, but while it stands there a device
// that comes new finds nothing better.
func (p *publisher) witness(topic string, payload []byte) {
	p.mu.Lock()
	want, known := p.expect[topic]
	p.mu.Unlock()
	if !known || wire.NewBlobRef(payload).Digest == want {
		return
	}
	p.hub.log.Warn("somebody else wrote on a trust topic; restoring", "topic", topic, "bytes", len(payload))
	p.restore()
}

// stored is how a rollout stands in the registry.
type stored struct {
	Plan     rollout.Plan     `json:"plan"`
	Progress rollout.Progress `json:"progress"`
}

func decodeRollout(ro registry.Rollout) (stored, error) {
	var s stored
	if err := json.Unmarshal(ro.Plan, &s); err != nil {
		return s, fmt.Errorf("cloud: rollout %s in the registry: %w", ro.ID, err)
	}
	return s, s.Plan.Check()
}

// openPlans are the plans devices are to see, by serial. Of those that are done
// only the newest stays, for devices that come later.
func openPlans(ctx context.Context, reg *registry.Registry) ([]wire.Plan, error) {
	all, err := reg.Rollouts(ctx, string(rollout.Running), string(rollout.Done))
	if err != nil {
		return nil, err
	}
	var out []wire.Plan
	var done *wire.Plan
	for _, ro := range all {
		s, err := decodeRollout(ro)
		if err != nil {
			return nil, err
		}
		signed := s.Plan.Signed(s.Progress.Wave)
		if s.Progress.State == rollout.Running {
			out = append(out, signed)
		} else if done == nil || signed.Serial > done.Serial {
			done = &signed
		}
	}
	if done != nil {
		out = append(out, *done)
	}
	slices.SortFunc(out, func(a, b wire.Plan) int { return int(a.Serial - b.Serial) })
	return out, nil
}
