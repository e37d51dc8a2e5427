package cloud

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
)

// hubPatience is how long a running hub may take to publish what changed.
const hubPatience = 10 * time.Second

// carried is what a bundle takes along of the metadata, and the open plans.
func (f *Fleet) carried(ctx context.Context, o BundleOptions) (*publish.Publication, []wire.Plan, error) {
	p, err := f.refresh(ctx, o.Now)
	if errors.Is(err, fs.ErrNotExist) { // the hub's keys are elsewhere: it alone signs
		p, err = publish.Published(ctx, f.Repo())
	} else if err == nil && o.Valid > 0 {
		keys := publish.Keys{}
		for _, role := range []string{"snapshot", "timestamp"} {
			if keys[role], err = f.signers(ctx, role, ""); err != nil {
				return nil, nil, err
			}
		}
		p, err = publish.Carry(ctx, f.Repo(), keys["snapshot"], keys["timestamp"], o.Now, o.Valid)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("cloud: bundle: %w", err)
	}
	plans, err := publish.Plans(ctx, f.Repo())
	return p, plans, err
}

// refresh brings what is published in step with the registry: where a hub runs,
// by waiting for it, else by signing in its place.
func (f *Fleet) refresh(ctx context.Context, now time.Time) (*publish.Publication, error) {
	for end := time.Now().Add(hubPatience); ; {
		// A hub that only signs: it has no broker and serves nobody.
		h := &Hub{fleet: f, log: slog.New(slog.DiscardHandler), problems: map[string]string{}}
		signer, err := newPublisher(ctx, h)
		if err != nil {
			return nil, err
		}
		signer.holder = rand.Text()
		lease, err := f.Registry.AcquireLease(ctx, leaseName, signer.holder, leaseFor)
		if err == nil {
			p, err := signer.sign(ctx, repo{f.Registry, &lease}, now)
			return p, errors.Join(err, f.Registry.ReleaseLease(ctx, lease))
		}
		if !errors.Is(err, registry.ErrLeaseHeld) {
			return nil, err
		}
		p, ok, err := f.inStep(ctx)
		if err != nil || ok {
			return p, err
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("cloud: the hub that runs has not published what changed for %v; its log says why", hubPatience)
		}
		select {
		case <-time.After(publishEvery):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// inStep says whether all that is signed or to be signed is published.
func (f *Fleet) inStep(ctx context.Context) (*publish.Publication, bool, error) {
	all, err := openPlans(ctx, f.Registry)
	if err != nil {
		return nil, false, err
	}
	want, _, err := f.signable(ctx, all)
	if err != nil {
		return nil, false, err
	}
	have, err := publish.Plans(ctx, f.Repo())
	if err != nil {
		return nil, false, err
	}
	if !slices.EqualFunc(want, have, samePlan) {
		return nil, false, nil
	}
	p, err := publish.Published(ctx, f.Repo())
	if err != nil {
		return nil, false, err
	}
	for _, role := range []string{wire.RoleRoot, wire.RoleTargets, wire.RoleModels, wire.RoleRollouts} {
		if _, v, err := f.Repo().Latest(ctx, role); err != nil || v != p.Versions[role] {
			return nil, false, err
		}
	}
	return p, true, nil
}

func samePlan(a, b wire.Plan) bool { return string(wire.Encode(a)) == string(wire.Encode(b)) }
