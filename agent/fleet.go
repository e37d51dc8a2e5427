package agent

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/droverhq/drover/agent/chunks"
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
	if m.inbox != nil {
		m.inbox.Prime(ctx)
		g.Go(func() error { return m.inbox.Run(ctx) })
	}
	g.Go(func() error { return m.updater.Run(ctx) })
	g.Go(func() error { return m.link.Run(ctx) })
	g.Go(func() error { return source.Run(ctx) })
	g.Go(func() error { return m.asker.run(ctx) })
	g.Go(func() error { return a.renewer(m, dir, id, key).Run(ctx) })
	g.Go(func() error {
		return a.outbox.Run(ctx, func(ctx context.Context, topic string, payload []byte) error {
			retained := strings.HasSuffix(topic, "/"+string(wire.LeafState))
			return m.link.Publish(ctx, topic, payload, 1, retained)
		})
	})
	return g.Wait()
}

// tokenEvery is how often a device that is in no fleet looks for a token.
const tokenEvery = time.Second

// identity loads the device's identity, or waits for a token and enrols. A hub
// that is away is tried again, a token that is refused is set aside, and one
// that is new is tried at once.
func (a *Agent) identity(ctx context.Context, dir string, key crypto.Signer) (enroll.Identity, error) {
	var try attempt
	told := ""
	for {
		id, err := enroll.Load(dir)
		if err == nil || !errors.Is(err, enroll.ErrNotEnrolled) {
			return id, err
		}
		id, err = a.enrol(ctx, dir, key, &try)
		if err == nil {
			return id, nil
		}
		if ctx.Err() != nil {
			return enroll.Identity{}, ctx.Err()
		}
		if !errors.Is(err, errNotYet) && err.Error() != told {
			told = err.Error()
			a.setLinkState(link.State{Err: err})
			a.event(wire.Event{Kind: wire.EventStart, Message: told})
		}
		select {
		case <-time.After(tokenEvery):
		case <-ctx.Done():
			return enroll.Identity{}, ctx.Err()
		}
	}
}

// attempt is the last try of a token.
type attempt struct {
	token string
	pause time.Duration
	next  time.Time
}

// errNotYet says that the same token failed a moment ago.
var errNotYet = errors.New("agent: too soon to try the token again")

// enrol tries the token that lies in the state folder, if it is new or its time
// has come.
func (a *Agent) enrol(ctx context.Context, dir string, key crypto.Signer, try *attempt) (enroll.Identity, error) {
	path := filepath.Join(a.cfg.State, tokenFile)
	token, err := readToken(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return enroll.Identity{}, a.waits(path, try)
	case err != nil:
		return enroll.Identity{}, fmt.Errorf("agent: enrolment token: %w", err)
	case token == try.token && time.Now().Before(try.next):
		return enroll.Identity{}, errNotYet
	case token != try.token:
		*try = attempt{token: token, pause: tokenEvery}
	}
	id, err := enroll.Enroll(ctx, dir, token, a.cfg.Device, key)
	if err == nil {
		a.event(wire.Event{Kind: wire.EventStart, Message: "enrolled in fleet " + id.Fleet})
		return id, errors.Join(os.Remove(path))
	}
	var no *enroll.RefusedError
	// A hub that is busy or broken says nothing about the token.
	refused := errors.As(err, &no) && no.Status < http.StatusInternalServerError && no.Status != http.StatusTooManyRequests
	if refused || errors.Is(err, wire.ErrMalformed) {
		return id, errors.Join(err, os.Rename(path, path+".refused"))
	}
	try.next = time.Now().Add(try.pause)
	try.pause = min(2*try.pause, 15*time.Second)
	return id, err
}

// waits says what is missing; after a refused token the refusal stays in view.
func (a *Agent) waits(path string, try *attempt) error {
	if try.token != "" {
		return errNotYet
	}
	return fmt.Errorf("not a member of a fleet yet: put an enrolment token (drover enroll) into %s", path)
}

// readToken reads the token's file; one that is too large is cut, and then
// refused.
func readToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	const most = 8 << 10
	b, err := io.ReadAll(io.LimitReader(f, most))
	return string(b), err
}

// fetchPause is how long a device waits for chunks before it says that they did
// not come. The hub gathers a crowd for 8 s at most and is given three pauses, each
// twice as long as the one before, ahead of HTTPS: 10.5 s at least.
// A device alone, whom the hub answers at once, has a lost window again after one.
const fetchPause = 2 * time.Second

// join puts together what a member has.
func (a *Agent) join(id enroll.Identity, key crypto.Signer) (*member, *chunks.Source, error) {
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
	m.asker = &asker{
		fleet: wire.Topics{Fleet: m.fleet}, link: m.link, handle: a.receiveTrust(m), log: a.log,
		missing: make(chan *trust.MissingError, 1),
	}
	source := newChunkSource(a, m)
	m.inbox = a.newInbox(m, id.RootJSON)
	far, err := a.farSources(id, m.link)
	if err != nil {
		return nil, nil, err
	}
	m.updater, err = ota.New(ota.Config{
		Device: id.Device, Labels: a.currentLabels(), Capabilities: capabilities,
		Store: a.store, Trust: overheard{ota.FromTrust(m.trust), m.asker},
		Fetcher: fetch.New(fetch.Config{Near: m.near(), Source: source, Far: far, Pause: fetchPause, Logger: a.log}),
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

// subscribe asks for everything retained.
func (a *Agent) subscribe(ctx context.Context, m *member) error {
	return m.link.Subscribe(ctx, wire.Topics{Fleet: m.fleet}.TrustAll(), 1, a.receiveTrust(m))
}

// receiveTrust hands metadata to the updater.
func (a *Agent) receiveTrust(m *member) link.Handler {
	return func(topic string, payload []byte) {
		t, err := wire.ParseTopic(topic)
		switch {
		case err != nil:
			a.log.Warn("message on an unknown topic", "topic", topic)
		case t.Trust == "current":
			m.updater.OfferCurrent(payload)
		case t.Trust != "":
			m.updater.OfferRole(t.Trust, t.Version, payload)
		}
	}
}

func (a *Agent) setLinkState(s link.State) {
	a.mu.Lock()
	a.linkState = s
	a.mu.Unlock()
	a.changed()
}
