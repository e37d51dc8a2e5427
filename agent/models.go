package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/droverhq/drover/agent/health"
	"github.com/droverhq/drover/agent/vision"
	"github.com/droverhq/drover/infer/host/protocol"
	"github.com/droverhq/drover/ota"
)

// model is a candidate as vision runs it.
func (a *Agent) model(c ota.Candidate) vision.Model {
	m := vision.Model{Release: c.Release, Spec: c.Variant.Spec, Read: c.Model}
	if len(c.Runtime) > 0 {
		// What cannot be read is measured or defaulted anew.
		_ = json.Unmarshal(c.Runtime, &m.Runtime)
	}
	return m
}

// prober lets vision try a candidate.
type prober struct{ a *Agent }

// Probe implements ota.Prober.
func (p prober) Probe(ctx context.Context, c ota.Candidate) (ota.ProbeReport, error) {
	golden, err := c.Golden()
	if err != nil {
		return ota.ProbeReport{}, err // its kind says whether disk or release is to blame
	}
	m := p.a.model(c)
	m.Runtime = protocol.Runtime{} // to be chosen
	v, err := p.a.vision.Probe(ctx, m, golden, c.Variant.Tolerance, c.Manifest.Budget)
	if err != nil {
		return ota.ProbeReport{}, refusal(err)
	}
	chosen, err := json.Marshal(v.Runtime)
	if err != nil {
		return ota.ProbeReport{}, fmt.Errorf("agent: %w", err)
	}
	return ota.ProbeReport{Runtime: chosen, LatencyP99: v.LatencyP99, MemoryBytes: v.MemoryBytes, Cases: v.Cases}, nil
}

// refusal gives vision's failure the updater's form.
func refusal(err error) error {
	var f *vision.Failure
	if errors.As(err, &f) {
		return &ota.Refusal{Reason: f.Reason, Message: f.Message, Err: err}
	}
	return err
}

// activator lets the updater decide which release answers.
type activator struct{ a *Agent }

// Activate implements ota.Activator.
func (t activator) Activate(ctx context.Context, c ota.Candidate) error {
	if serving, _ := t.a.vision.Serving(ctx); serving == c.Release {
		return nil
	}
	return t.a.vision.Activate(ctx, t.a.model(c))
}

// Return implements ota.Activator.
func (t activator) Return(ctx context.Context, to *ota.Candidate) error {
	if to == nil {
		return t.a.vision.Deactivate(ctx)
	}
	serving, previous := t.a.vision.Serving(ctx)
	switch to.Release {
	case serving:
		return nil
	case previous:
		return t.a.vision.Return(ctx)
	}
	if err := t.a.vision.Activate(ctx, t.a.model(*to)); err != nil {
		return err
	}
	return t.a.vision.Commit(ctx) // nothing to go back to from here
}

// Commit implements ota.Activator.
func (t activator) Commit(ctx context.Context, _ ota.Candidate) error { return t.a.vision.Commit(ctx) }

// judge watches a release on trial.
type judge struct{ a *Agent }

// watchEvery is how often a release on trial is looked at.
const watchEvery = 200 * time.Millisecond

// Probation implements ota.Health.
func (j judge) Probation(ctx context.Context, c ota.Candidate, frames int) error {
	policy := health.Policy{
		Frames: frames, LatencyP99: time.Duration(c.Manifest.Budget.LatencyP99Micros) * time.Microsecond,
		Varied: health.Varies(j.a.vision.PreviousClasses(ctx)),
	}
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		o, err := j.a.vision.Observe(ctx)
		if err != nil {
			return err
		}
		verdict, reason, message := health.Judge(health.Observation{
			Results: o.Results, Errors: o.Errors, Restarts: o.Restarts, Hangs: o.Hangs, Classes: o.Classes, P99: o.P99, Why: o.LastError,
		}, policy)
		switch verdict {
		case health.Commit:
			return nil
		case health.Return:
			return &ota.Refusal{Reason: reason, Message: message}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
