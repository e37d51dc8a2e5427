package agent

import (
	"context"
	"crypto"
	"time"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/renew"
)

// renewer keeps the device's certificate from running out.
func (a *Agent) renewer(m *member, dir string, id enroll.Identity, key crypto.Signer) *renew.Renewer {
	return renew.New(renew.Config{
		Dir: dir, Identity: id, Key: key, Session: linkSession{m.link}, Header: a.header,
		Now:     func() time.Time { return m.trust.Status().RefTime },
		Renewed: m.link.SetCertificate,
		Log:     a.log,
	})
}

// linkSession is a link as agent/renew sees it.
type linkSession struct{ *link.Link }

// Subscribe implements renew.Session.
func (l linkSession) Subscribe(ctx context.Context, filter string, qos byte, handle func(topic string, payload []byte)) error {
	return l.Link.Subscribe(ctx, filter, qos, handle)
}
