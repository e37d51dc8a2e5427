package agent

import (
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"

	"github.com/droverhq/drover/agent/chunks"
	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/ota/fetch"
)

// newChunkSource asks the hub for chunks over the link.
func newChunkSource(a *Agent, m *member) *chunks.Source {
	return chunks.New(chunks.Config{
		Fleet: m.fleet, Device: a.cfg.Device, Link: m.link, Header: a.header, Logger: a.log,
		Deliver: func(digest string, chunk int, data []byte) { m.updater.OfferChunk(digest, chunk, data) },
	})
}

// farSources are the places that serve blobs over HTTPS: those of the
// configuration first, then those told at enrolment.
func (a *Agent) farSources(id enroll.Identity, l *link.Link) ([]fetch.Reader, error) {
	var out []fetch.Reader
	seen := map[string]bool{}
	for _, s := range slices.Concat(a.cfg.Sources, id.Sources) {
		u, err := url.Parse(s)
		if err != nil {
			return nil, fmt.Errorf("agent: source %q: %w", s, err)
		}
		if u.Port() == "" {
			u.Host = net.JoinHostPort(u.Hostname(), "443")
		}
		if seen[u.Host] {
			continue
		}
		seen[u.Host] = true
		t, err := link.ClientTLS(u.Host, l.Certificate(), id.CA)
		if err != nil {
			return nil, fmt.Errorf("agent: source %q: %w", s, err)
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			cert := l.Certificate() // it is renewed now and then
			return &cert, nil
		}
		r, err := fetch.NewHTTPS("https://"+u.Host, t)
		if err != nil {
			return nil, fmt.Errorf("agent: %w", err)
		}
		out = append(out, r)
	}
	return out, nil
}
