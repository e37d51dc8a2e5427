package cloud

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"sync"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/blobserver"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/multicast"
	"github.com/droverhq/drover/cloud/registry"
)

// shelf says which device may have which blob: those that the plans which are
// open for it name. It is safe for concurrent use.
type shelf struct {
	reg *registry.Registry

	mu    sync.Mutex
	seen  int64 // change counter of the plans
	plans []grant
}

// grant is an open plan with the blobs of its release.
type grant struct {
	plan  wire.Plan
	blobs map[string]int64 // digest to size
}

// allowed says how large a blob is, if a plan that is open for the device names
// it: nothing else leaves the registry this way.
func (s *shelf) allowed(ctx context.Context, device, digest string) (int64, error) {
	grants, err := s.grants(ctx)
	if err != nil {
		return 0, err
	}
	var labels map[string]string
	for i := range grants {
		size, named := grants[i].blobs[digest]
		if !named {
			continue
		}
		if labels == nil {
			if labels, err = s.labels(ctx, device); err != nil {
				return 0, err
			}
		}
		if grants[i].plan.Selector.Matches(device, labels) {
			return size, nil
		}
	}
	return 0, fmt.Errorf("cloud: no open plan gives blob %s to device %s", digest, device)
}

// labels are the device's own words. A device that lies about them gets models
// that are meant for other devices of its fleet, and runs none of them.
func (s *shelf) labels(ctx context.Context, device string) (map[string]string, error) {
	d, err := s.reg.Device(ctx, device)
	if err != nil {
		return nil, err
	}
	if d.Revoked() {
		return nil, fmt.Errorf("cloud: device %s is revoked", device)
	}
	st := wire.State{Labels: map[string]string{}}
	if len(d.State) > 0 {
		if err := json.Unmarshal(d.State, &st); err != nil {
			return nil, fmt.Errorf("cloud: state of device %s: %w", device, err)
		}
	}
	return st.Labels, nil
}

// grants are remembered until plans or releases change.
func (s *shelf) grants(ctx context.Context) ([]grant, error) {
	n, err := s.reg.ChangeCounter(ctx, registry.AreaRollouts, registry.AreaReleases)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.plans != nil && s.seen == n {
		return s.plans, nil
	}
	plans, err := openPlans(ctx, s.reg)
	if err != nil {
		return nil, err
	}
	out := make([]grant, 0, len(plans))
	for _, p := range plans {
		blobs, err := s.blobs(ctx, p.Release)
		if err != nil {
			return nil, err
		}
		out = append(out, grant{p, blobs})
	}
	s.plans, s.seen = out, n
	return out, nil
}

// blobs are what a release is made of: its manifest and what that names.
func (s *shelf) blobs(ctx context.Context, path string) (map[string]int64, error) {
	rel, err := s.reg.Release(ctx, path)
	if err != nil {
		return nil, err
	}
	raw, err := s.reg.ReadBlob(ctx, rel.Manifest, wire.MaxManifest)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{rel.Manifest: int64(len(raw))}
	m, err := wire.DecodeManifest(raw)
	if err != nil {
		// Devices will refuse it, once they have it; other plans go on.
		return out, nil
	}
	for i := range m.Variants {
		v := &m.Variants[i]
		out[v.Model.Digest], out[v.Golden.Digest] = v.Model.Size, v.Golden.Size
		for _, d := range v.Deltas {
			out[d.Blob.Digest] = d.Blob.Size
		}
	}
	return out, nil
}

// newChunks answers requests for chunks over the broker. They are published with
// QoS 1, although devices are sent them with QoS 0: the broker's acknowledgement
// is the pace, so that "sent" means that the broker is sending it.
func (h *Hub) newChunks() *multicast.Server {
	topics := wire.Topics{Fleet: h.fleet.Settings.Fleet}
	return multicast.New(multicast.Config{
		Allowed: h.shelf.allowed, Read: h.fleet.Registry.ReadBlobAt, Logger: h.log,
		Publish: func(ctx context.Context, digest string, chunk int, data []byte) error {
			return h.session.Publish(ctx, topics.BlobChunk(digest, chunk), data, 1, false)
		},
		Repair: func(ctx context.Context, device, digest string, chunk int, data []byte) error {
			return h.session.Publish(ctx, topics.Repair(device, chunk), wire.Repair(digest, data), 1, false)
		},
	})
}

// newBlobs answers them over HTTPS.
func (h *Hub) newBlobs() *blobserver.Server {
	a := h.fleet.Authority
	return blobserver.New(blobserver.Config{
		Member: func(c *x509.Certificate) (string, error) {
			name := c.Subject.CommonName
			if !identity.ValidDevice(name) || a.Revoked(identity.Serial(c)) {
				return "", fmt.Errorf("cloud: certificate of %q is no device's, or revoked", name)
			}
			return name, nil
		},
		Allowed: h.shelf.allowed, Pay: h.chunks.Pay, Read: h.fleet.Registry.ReadBlobAt, Logger: h.log,
	})
}

// web is what the hub serves over HTTPS: enrolment to anybody with a token,
// blobs to members.
func (h *Hub) web(enroll http.Handler) (http.Handler, *tls.Config) {
	mux := http.NewServeMux()
	mux.Handle(wire.PathEnroll, enroll)
	mux.Handle(wire.PathBlob, h.blobs)
	t := h.fleet.Authority.HTTPSConfig()
	t.ClientAuth, t.ClientCAs = tls.VerifyClientCertIfGiven, h.fleet.Authority.Pool()
	t.SessionTicketsDisabled = true // a resumed session would skip what was decided since
	return mux, t
}
