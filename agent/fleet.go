package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/infer"
	"github.com/droverhq/drover/infer/modelfile"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/trust"
)

// tokenFile in the state folder is where an enrolment token may be put; it is
// removed once it was used.
const tokenFile = "enrolment-token"

// fleet is everything that needs membership: it waits for it, then runs
// updates and the link.
func (a *Agent) fleet(ctx context.Context) error {
	dir := filepath.Join(a.cfg.State, "identity")
	key, err := a.deviceKey(ctx, dir)
	if err != nil {
		return err
	}
	id, err := a.identity(ctx, dir, key)
	if err != nil {
		return err
	}
	if id.Device != a.cfg.Device {
		return fmt.Errorf("agent: this device was enrolled as %q, the configuration calls it %q; set device: %s, or empty %s and enrol anew", id.Device, a.cfg.Device, id.Device, dir)
	}
	m, source, err := a.join(id, key)
	if err != nil {
		return err
	}
	a.member.Store(m)
	m.updater.SetLabels(a.currentLabels()) // they may have changed since join
	if c, ok := m.updater.Active(); ok {
		if err := a.vision.Activate(ctx, a.model(c)); err != nil {
			a.event(wire.Event{Kind: wire.EventChild, Release: c.Release.Path, Message: "the active release does not start: " + err.Error()})
		}
	}
	if err := a.subscribe(ctx, m); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.updater.Run(ctx) })
	g.Go(func() error { return m.link.Run(ctx) })
	g.Go(func() error { return source.run(ctx) })
	g.Go(func() error {
		return a.outbox.Run(ctx, func(ctx context.Context, topic string, payload []byte) error {
			retained := strings.HasSuffix(topic, "/"+string(wire.LeafState))
			return m.link.Publish(ctx, topic, payload, 1, retained)
		})
	})
	return g.Wait()
}

// identity loads the device's identity, or waits for a token and enrols. A hub
// that is away is tried again, a token that is refused is set aside.
func (a *Agent) identity(ctx context.Context, dir string, key crypto.Signer) (enroll.Identity, error) {
	path := filepath.Join(a.cfg.State, tokenFile)
	pause, told := time.Second, ""
	for {
		id, err := enroll.Load(dir)
		if err == nil {
			return id, nil
		}
		if !errors.Is(err, enroll.ErrNotEnrolled) {
			return id, err
		}
		token, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			err = fmt.Errorf("not a member of a fleet yet: put an enrolment token (drover enroll) into %s", path)
		case err == nil:
			if id, err = enroll.Enroll(ctx, dir, string(token), a.cfg.Device, key); err == nil {
				a.event(wire.Event{Kind: wire.EventStart, Message: "enrolled in fleet " + id.Fleet})
				return id, errors.Join(os.Remove(path))
			}
			var refused *enroll.RefusedError
			if errors.As(err, &refused) || errors.Is(err, wire.ErrMalformed) {
				err = errors.Join(err, os.Rename(path, path+".refused"))
			}
		}
		if ctx.Err() != nil {
			return enroll.Identity{}, ctx.Err()
		}
		a.setLinkState(link.State{Err: err})
		if err.Error() != told {
			told = err.Error()
			a.event(wire.Event{Kind: wire.EventStart, Message: told})
		}
		select {
		case <-time.After(pause):
			pause = min(pause*3/2, 15*time.Second)
		case <-ctx.Done():
			return enroll.Identity{}, ctx.Err()
		}
	}
}

// join puts together what a member has.
func (a *Agent) join(id enroll.Identity, key crypto.Signer) (*member, *chunkSource, error) {
	cert, err := id.Certificate(key)
	if err != nil {
		return nil, nil, fmt.Errorf("%w (a device whose key moved into another TPM, or into one at all, must enrol anew: empty %s)", err, filepath.Join(a.cfg.State, "identity"))
	}
	m := &member{fleet: id.Fleet, broker: id.Broker}
	if m.trust, err = trust.Open(trust.Options{Store: a.store, Root: id.RootJSON, BuildTime: a.opts.BuildTime, Logger: a.log}); err != nil {
		return nil, nil, fmt.Errorf("agent: %w", err)
	}
	if m.link, err = link.New(link.Config{
		Broker: id.Broker, Fleet: id.Fleet, Device: id.Device, Certificate: cert, CA: id.CA,
		Boot: a.boot, Agent: a.opts.Version, Log: a.log,
		OnState: func(s link.State) {
			a.setLinkState(s)
			if s.Connected {
				a.outbox.Resend()
			}
		},
	}); err != nil {
		return nil, nil, err
	}
	source := newChunkSource(a, m)
	m.updater, err = ota.New(ota.Config{
		Device: id.Device, Labels: a.currentLabels(), Capabilities: capabilities,
		Store: a.store, Trust: ota.FromTrust(m.trust),
		Fetcher: fetch.New(fetch.Config{Source: source, Logger: a.log}),
		Prober:  prober{a}, Activator: activator{a}, Health: judge{a}, Anchor: a.anchor, Inspect: inspect,
		OnEvent: a.event, Logger: a.log,
	})
	if err != nil {
		return nil, nil, err
	}
	return m, source, nil
}

// capabilities are what a release may require of this agent.
var capabilities = []string{"manifest-v1", "golden", "probation"}

// inspect reads a model without running it.
func inspect(model []byte) (infer.Contract, []string, error) {
	m, err := modelfile.Parse(model)
	if err != nil {
		return infer.Contract{}, nil, err
	}
	c, err := m.Contract()
	return c, m.CustomOps(), err
}

// subscribe asks for everything retained; what arrives goes to the updater.
func (a *Agent) subscribe(ctx context.Context, m *member) error {
	return m.link.Subscribe(ctx, wire.Topics{Fleet: m.fleet}.TrustAll(), 1, func(topic string, payload []byte) {
		t, err := wire.ParseTopic(topic)
		switch {
		case err != nil:
			a.log.Warn("message on an unknown topic", "topic", topic)
		case t.Trust == "current":
			m.updater.OfferCurrent(payload)
		case t.Trust != "":
			m.updater.OfferRole(t.Trust, t.Version, payload)
		}
	})
}

func (a *Agent) setLinkState(s link.State) {
	a.mu.Lock()
	a.linkState = s
	a.mu.Unlock()
	a.changed()
}
