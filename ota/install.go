package ota

import (
	"context"
	"encoding/json"
	"slices"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/store"
)

// edgeTPUOp is the custom operator of models compiled for the Edge TPU.
const edgeTPUOp = "edgetpu-custom-op"

// maxRuntime bounds what a Prober may choose, in bytes of JSON.
const maxRuntime = 16 << 10

// doCheck reads the model without running it.
func (u *Updater) doCheck(_ context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	if err := u.acceptable(c.Manifest); err != nil {
		return Input{}, err
	}
	if _, err := c.Golden(); err != nil {
		return Input{}, err
	}
	model, err := c.Model()
	if err != nil {
		return Input{}, err
	}
	got, ops, err := u.cfg.Inspect(model)
	if err != nil {
		return Input{}, refusef(wire.ReasonModel, "no model this device can read: %w", err)
	}
	if err := got.Diff(c.Variant.Spec.Contract); err != nil {
		return Input{}, refusef(wire.ReasonContract, "model differs from its manifest: %w", err)
	}
	if n := got.Classes(); n != len(c.Variant.Spec.Labels) {
		return Input{}, refusef(wire.ReasonContract, "%d labels for %d outputs", len(c.Variant.Spec.Labels), n)
	}
	for _, op := range ops {
		if !u.runsOp(op) {
			return Input{}, refusef(wire.ReasonRequires, "model needs the custom operator %q, which this device lacks", op)
		}
	}
	return Input{Kind: Done}, nil
}

func (u *Updater) runsOp(op string) bool {
	has := func(c string) bool { return slices.Contains(u.cfg.Capabilities, c) }
	return has("op:"+op) || (op == edgeTPUOp && has("edgetpu"))
}

// doProbe lets the model prove itself apart from what is running.
func (u *Updater) doProbe(ctx context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	rep, err := u.cfg.Prober.Probe(ctx, c)
	if err != nil {
		return Input{}, err
	}
	u.cfg.Logger.Info("ota: probed", "release", c.Release.Path, "variant", c.Variant.Name, "cases", rep.Cases,
		"p99", rep.LatencyP99, "memory", rep.MemoryBytes, "runtime", string(rep.Runtime))
	if rep.Runtime == nil {
		rep.Runtime = json.RawMessage("null")
	}
	if !json.Valid(rep.Runtime) || len(rep.Runtime) > maxRuntime {
		return Input{}, refusef(wire.ReasonInternal, "the probe chose a runtime that cannot be stored: %.80q", rep.Runtime)
	}
	return Input{Kind: Done, Runtime: rep.Runtime}, nil
}

func slotOf(c Candidate, plan string) *store.Release {
	return &store.Release{
		Path: c.Release.Path, Manifest: c.Release.Digest, Variant: c.Variant.Name,
		Model: c.Variant.Model.Digest, Golden: c.Variant.Golden.Digest,
		Epoch: c.Manifest.Epoch, Plan: plan, Runtime: c.Runtime,
	}
}

// doActivate notes the candidate and lets it answer.
func (u *Updater) doActivate(ctx context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	slots := u.cfg.Store.Slots()
	slots.Candidate = slotOf(c, t.state.Target.Plan)
	if err := u.cfg.Store.SaveSlots(slots); err != nil {
		return Input{}, err
	}
	if err := u.cfg.Activator.Activate(ctx, c); err != nil {
		return Input{}, err
	}
	return Input{Kind: Done}, nil
}

// doProbation waits for the verdict on the release on trial.
func (u *Updater) doProbation(ctx context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	if err := u.cfg.Health.Probation(ctx, c, t.state.Target.Frames); err != nil {
		return Input{}, err
	}
	return Input{Kind: Done}, nil
}

// doCommit moves the slots: the moment after which there is no way back. What
// follows cannot undo it, so its errors are logged and made up for at the next
// start.
func (u *Updater) doCommit(ctx context.Context, t task) (Input, error) {
	c, err := u.load(t.state)
	if err != nil {
		return Input{}, err
	}
	slots := u.cfg.Store.Slots()
	if slots.Candidate == nil || slots.Candidate.Manifest != c.Release.Digest {
		return Input{}, refusef(wire.ReasonInternal, "the candidate slot does not hold %s", c.Release.Path)
	}
	if err := u.cfg.Store.SaveSlots(store.Slots{Active: slots.Candidate, Previous: slotFor(slots, t.active)}); err != nil {
		return Input{}, err
	}
	if err := u.cfg.Activator.Commit(ctx, c); err != nil {
		u.cfg.Logger.Warn("ota: commit: end what was kept warm", "release", c.Release.Path, "err", err)
	}
	u.raise(c.Manifest.Epoch)
	return Input{Kind: Done}, nil
}

// slotFor finds the slot of the release that ran until now; nil when none did.
func slotFor(slots store.Slots, active *Candidate) *store.Release {
	for _, r := range []*store.Release{slots.Active, slots.Previous} {
		if r != nil && active != nil && r.Manifest == active.Release.Digest {
			return r
		}
	}
	return nil
}

// raise lifts the anchor to the epoch of a committed release.
func (u *Updater) raise(epoch uint64) {
	if err := u.cfg.Anchor.Raise(epoch); err != nil {
		u.cfg.Logger.Error("ota: raise the security epoch; it is tried again at the next start", "epoch", epoch, "err", err)
	}
}

// doRollback lets the committed release answer again, then gives up the
// candidate.
func (u *Updater) doRollback(ctx context.Context, t task) (Input, error) {
	err := u.cfg.Activator.Return(ctx, t.active)
	slots := u.cfg.Store.Slots()
	slots.Candidate = nil
	if serr := u.cfg.Store.SaveSlots(slots); serr != nil {
		u.cfg.Logger.Warn("ota: rollback: empty the candidate slot", "err", serr)
	}
	if err != nil {
		return Input{}, err
	}
	return Input{Kind: Done}, nil
}
