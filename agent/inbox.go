package agent

import (
	"errors"
	"fmt"
	"io"

	"github.com/droverhq/drover/agent/inbox"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota"
	"github.com/droverhq/drover/ota/bundle"
	"github.com/droverhq/drover/ota/fetch"
	"github.com/droverhq/drover/ota/trust"
)

// newInbox prepares the folder for bundles; nil where there is none. A folder
// that cannot be used is told and costs nothing else.
func (a *Agent) newInbox(m *member, root []byte) *inbox.Inbox {
	c := a.cfg.Inbox
	if c.Off() {
		return nil
	}
	in, err := inbox.New(inbox.Config{
		Dir: c.Dir, Media: c.Media, Patience: c.Patience, Keep: c.Keep,
		Device: byHand{a, m, root}, OnEvent: a.event, Logger: a.log,
	})
	if err != nil {
		a.event(wire.Event{Kind: wire.EventConfig, Reason: wire.ReasonInternal, Message: "releases cannot come by hand: " + err.Error()})
		return nil
	}
	return in
}

// near are the sources that cost nothing.
func (m *member) near() []fetch.Reader {
	if m.inbox == nil {
		return nil
	}
	return []fetch.Reader{m.inbox.Source()}
}

// byHand is the device as its inbox sees it.
type byHand struct {
	a    *Agent
	m    *member
	root []byte // from enrolment
}

// Judge implements inbox.Device: a second verifier with the same memory tries
// the bundle and is then forgotten.
func (h byHand) Judge(b *bundle.Bundle, r io.ReaderAt) (inbox.Target, error) {
	if err := h.sameFleet(b); err != nil {
		return inbox.Target{}, err
	}
	c, err := h.rehearsal()
	if err != nil {
		return inbox.Target{}, err
	}
	if err := rehearse(c, b); err != nil {
		// Where newer metadata is here already and asks for what the bundle
		// brings, its blobs serve all the same.
		if t := trust.Reason(err); t != wire.ReasonRollback && t != wire.ReasonExpired || !h.wants(b) {
			return inbox.Target{}, refusedBy(err)
		}
		c = h.m.trust
	}
	return h.lead(c, b, r)
}

// wants says whether the device's own metadata asks for the release.
func (h byHand) wants(b *bundle.Bundle) bool {
	o, err := h.m.trust.Select(h.a.cfg.Device, h.a.currentLabels())
	if err != nil || o == nil {
		return false
	}
	_, _, ok := b.Blob(o.Ref().Digest)
	return ok
}

// lead says to what release a verifier leads this device, with a bundle.
func (h byHand) lead(c *trust.Client, b *bundle.Bundle, r io.ReaderAt) (inbox.Target, error) {
	o, err := c.Select(h.a.cfg.Device, h.a.currentLabels())
	if err != nil {
		return inbox.Target{}, refusedBy(err)
	}
	if o == nil {
		return inbox.Target{}, &ota.Refusal{Reason: wire.ReasonPlan, Message: fmt.Sprintf(
			"none of its plans means this device (%s, labels %v); it brings %s", h.a.cfg.Device, h.a.currentLabels(), b.Head.Release)}
	}
	if _, _, ok := b.Blob(o.Ref().Digest); !ok {
		return inbox.Target{}, &ota.Refusal{Reason: wire.ReasonPlan, Message: fmt.Sprintf(
			"plan %s, which counts for this device, names %s; it brings %s", o.Plan().ID, o.Plan().Release, b.Head.Release)}
	}
	raw, err := b.ReadBlob(r, o.Ref().Digest, wire.MaxManifest)
	if err != nil {
		return inbox.Target{}, err
	}
	release, err := o.Verify(raw)
	if err != nil {
		return inbox.Target{}, refusedBy(err)
	}
	p := o.Plan()
	t := inbox.Target{Plan: p.ID, Serial: p.Serial, Release: p.Release, Digest: o.Ref().Digest, Timestamp: c.Status().Versions["timestamp"]}
	if s, _ := h.Standing(t); s == inbox.Done {
		return t, nil
	}
	return t, h.suffices(b, release.Manifest())
}

// sameFleet tells a bundle of another fleet by the root they should share: the
// verifier would find that its signatures are wrong, which says less.
func (h byHand) sameFleet(b *bundle.Bundle) error {
	st := h.m.trust.Status()
	same := b.Head.Fleet == h.m.fleet
	for _, m := range b.Metadata {
		if m.Role == wire.RoleRoot && m.Version == st.Versions[wire.RoleRoot] {
			same = same && wire.NewBlobRef(m.Raw).Digest == st.Root
		}
	}
	if !same {
		return &ota.Refusal{Reason: wire.ReasonSignature, Message: fmt.Sprintf(
			"it is of another fleet: it calls itself %q, this device is in %q, and they do not share a root", b.Head.Fleet, h.m.fleet)}
	}
	return nil
}

// rehearsal is a verifier that knows what the device's own does.
func (h byHand) rehearsal() (*trust.Client, error) {
	files, floor, err := h.a.store.LoadTrust()
	if err != nil {
		return nil, fmt.Errorf("agent: inbox: %w", err)
	}
	memory := new(trust.Memory)
	if err := memory.SaveTrust(files, floor); err != nil {
		return nil, fmt.Errorf("agent: inbox: %w", err)
	}
	return trust.Open(trust.Options{Store: memory, Root: h.root, BuildTime: h.a.opts.BuildTime})
}

// rehearse offers a bundle's metadata until it is taken or refused; a long chain
// of roots takes several rounds.
func rehearse(c *trust.Client, b *bundle.Bundle) error {
	for {
		root := c.Status().Versions[wire.RoleRoot]
		for _, m := range b.Metadata {
			if err := c.OfferRole(m.Role, m.Version, m.Raw); err != nil {
				return err
			}
		}
		if err := c.OfferCurrent(b.Current); err != nil {
			return err
		}
		err := c.Refresh()
		_, missing := errors.AsType[*trust.MissingError](err)
		if !missing || c.Status().Versions[wire.RoleRoot] == root {
			return err
		}
	}
}

// refusedBy is a refusal by the verifier.
func refusedBy(err error) error {
	reason := trust.Reason(err)
	if reason == wire.ReasonNone { // something is missing: it was not made by drover bundle
		reason = wire.ReasonMalformed
	}
	return &ota.Refusal{Reason: reason, Message: err.Error(), Err: err}
}

// suffices says whether a device without a broker gets by with what a bundle
// holds.
func (h byHand) suffices(b *bundle.Bundle, m *wire.Manifest) error {
	has := func(digest string) bool {
		_, _, ok := b.Blob(digest)
		return ok || h.a.store.Blobs().Has(digest)
	}
	for i := range m.Variants {
		v := &m.Variants[i]
		if !has(v.Golden.Digest) {
			continue
		}
		if has(v.Model.Digest) {
			return nil
		}
		for _, d := range v.Deltas {
			if has(d.Blob.Digest) && h.a.store.Blobs().Has(d.Base) {
				return nil
			}
		}
	}
	return &ota.Refusal{Reason: wire.ReasonFetch, Message: fmt.Sprintf(
		"it holds neither a model of %s nor a delta from a model that is here; make one without --base", m.Path())}
}

// Offer implements inbox.Device. What is older than what is here is not offered:
// that was no news to anybody.
func (h byHand) Offer(b *bundle.Bundle) {
	if b.Timestamp() <= h.m.trust.Status().Versions["timestamp"] {
		return
	}
	root := h.m.trust.Status().Versions[wire.RoleRoot]
	for _, m := range b.Metadata {
		if m.Role != wire.RoleRoot || m.Version > root && m.Version <= root+trust.MaxRotations {
			h.m.updater.OfferRole(m.Role, m.Version, m.Raw)
		}
	}
	h.m.updater.OfferCurrent(b.Current)
}

// Standing implements inbox.Device.
func (h byHand) Standing(t inbox.Target) (inbox.Standing, error) {
	if c, ok := h.m.updater.Active(); ok && c.Release.Path == t.Release && c.Release.Digest == t.Digest {
		return inbox.Done, nil
	}
	st := h.m.updater.State()
	target := ota.Target{Plan: t.Plan, Serial: t.Serial, Release: t.Release, Manifest: wire.BlobRef{Digest: t.Digest}}
	if st.Step != wire.Idle || h.m.trust.Status().Versions["timestamp"] < t.Timestamp {
		return inbox.Pending, nil // what was offered may not have been looked at yet
	}
	if r, ok := st.Refusal(&target); ok && r.ForGood() {
		message := fmt.Sprintf("%s was tried and refused before", t.Release)
		if st.Last.Release == t.Release && st.Last.Message != "" {
			message = t.Release + ": " + st.Last.Message
		}
		return inbox.Ended, &ota.Refusal{Reason: r.Reason, Message: message}
	}
	o, err := h.m.trust.Select(h.a.cfg.Device, h.a.currentLabels())
	switch {
	case err != nil:
		return inbox.Ended, refusedBy(err)
	case o == nil, o.Plan().Release != t.Release, o.Ref().Digest != t.Digest:
		return inbox.Ended, &ota.Refusal{Reason: wire.ReasonSuperseded, Message: "a newer plan counts: " + t.Release + " is not wanted here any more"}
	}
	return inbox.Pending, nil
}
