package up

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/cloud/registry"
)

// tampered plays somebody who has the broker: with keys of their own they sign
// a world in which the first model is the newest release, and put it on the
// fleet's topics. The device must refuse it for its signature.
func (s *story) tampered(ctx context.Context, first, good registry.Release) error {
	forged, err := s.forge(ctx, first)
	if err != nil {
		return fmt.Errorf("up: forge a release: %w", err)
	}
	mark := s.events.mark()
	if err := s.impose(ctx, forged); err != nil {
		return fmt.Errorf("up: take over the broker: %w", err)
	}
	e, err := s.events.wait(ctx, mark, updateWithin, "refusal of the forged metadata", func(e wire.Event) bool {
		return e.Kind == wire.EventTrust && e.Reason == wire.ReasonSignature
	})
	if err != nil {
		return err
	}
	s.refused(e)
	return s.answers(ctx, good)
}

// forge makes a fleet of the same name with other keys, and a rollout in it.
func (s *story) forge(ctx context.Context, of registry.Release) (*publish.Publication, error) {
	dir := filepath.Join(s.opts.Dir, "attacker")
	evil, err := cloud.Init(ctx, dir, cloud.InitOptions{Settings: s.fleet.Settings, Insecure: true})
	if err != nil {
		return nil, err
	}
	defer evil.Close()
	m, err := s.fleet.Manifest(ctx, of.Path)
	if err != nil {
		return nil, err
	}
	m.Version, m.Notes = m.Version+100, "tampered with"
	keys, now := publish.Keys{}, time.Now()
	for _, role := range publish.Roles() {
		if keys[role], err = (publish.KeyDir{Path: filepath.Join(dir, "keys")}).Load(role, ""); err != nil {
			return nil, err
		}
	}
	if _, err := publish.AddRelease(ctx, evil.Repo(), keys[wire.RoleModels], wire.Encode(m), now); err != nil {
		return nil, err
	}
	plan := wire.Plan{V: wire.Version, ID: "forged", Serial: 1000, Release: m.Path(), Selector: wire.Selector{Threshold: wire.Whole}}
	plan.Probation.Frames, plan.Probation.Seconds = 1, 60
	if err := publish.SetPlans(ctx, evil.Repo(), keys[wire.RoleRollouts], []wire.Plan{plan}, now); err != nil {
		return nil, err
	}
	return publish.Publish(ctx, evil.Repo(), keys["snapshot"], keys["timestamp"], now)
}

// impose puts a forged world on the fleet's topics, with the broker's own power:
// the hub's certificate stands for a broker that was taken over.
func (s *story) impose(ctx context.Context, p *publish.Publication) error {
	settings := s.fleet.Settings
	host, _, err := net.SplitHostPort(settings.Broker.Public)
	if err != nil {
		return err
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tls://" + settings.Broker.Public).SetClientID(identity.HubName).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectTimeout(attackWithin).
		SetTLSConfig(&tls.Config{
			MinVersion: tls.VersionTLS13, RootCAs: s.fleet.Authority.Pool(), ServerName: host,
			Certificates: []tls.Certificate{s.fleet.Authority.HubCertificate()},
		}))
	if err := done(ctx, client.Connect()); err != nil {
		return err
	}
	defer client.Disconnect(100)
	topics := wire.Topics{Fleet: settings.Fleet}
	for _, m := range p.Retained {
		if err := done(ctx, client.Publish(topics.TrustRole(m.Role, m.Version), 1, true, m.Raw)); err != nil {
			return err
		}
	}
	return done(ctx, client.Publish(topics.TrustCurrent(), 1, true, p.Current))
}

const attackWithin = 10 * time.Second

// done waits for what the MQTT client was asked for.
func done(ctx context.Context, t mqtt.Token) error {
	select {
	case <-t.Done():
		return t.Error()
	case <-time.After(attackWithin):
		return errors.New("no answer from the broker")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// bad signs, with the right key, the first model under the golden outputs of
// the second: what a mix-up in a build would do. The device must refuse it for
// its answers.
func (s *story) bad(ctx context.Context, first, good registry.Release) error {
	old, err := s.fleet.Manifest(ctx, first.Path)
	if err != nil {
		return err
	}
	m, err := s.fleet.Manifest(ctx, good.Path)
	if err != nil {
		return err
	}
	model, err := s.fleet.Registry.ReadBlob(ctx, old.Variants[0].Model.Digest, wire.MaxBlob)
	if err != nil {
		return err
	}
	pushed, err := s.fleet.Push(ctx, cloud.PushOptions{Name: modelName, Model: model, Spec: old.Variants[0].Spec, Host: s.host()})
	if err != nil {
		return err
	}
	m.Version, m.Created = pushed.Version, time.Now().Unix()
	v := &m.Variants[0]
	v.Model, v.Spec, v.Deltas = old.Variants[0].Model, old.Variants[0].Spec, nil
	rel, err := s.fleet.SignRelease(ctx, m, "")
	if err != nil {
		return err
	}
	mark := s.events.mark()
	if _, err := s.fleet.StartRollout(ctx, cloud.RolloutOptions{Release: rel.Path, Frames: probation}); err != nil {
		return err
	}
	e, err := s.events.wait(ctx, mark, updateWithin, "refusal of "+rel.Path, func(e wire.Event) bool { return e.Release == rel.Path && e.Outcome != "" })
	if err != nil {
		return err
	}
	if e.Outcome != wire.Refused || e.Reason != wire.ReasonGolden {
		return fmt.Errorf("up: the bad release ended as %s (%s), expected refused (golden): %s", e.Outcome, e.Reason, e.Message)
	}
	s.refused(e)
	return errors.Join(s.settled(ctx), s.answers(ctx, good))
}

func (s *story) refused(e wire.Event) {
	s.sum.Refused = append(s.sum.Refused, string(e.Reason))
	s.ui.say("  refused      %s: %s", e.Reason, e.Message)
}
