package ota

import (
	"errors"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust"
)

// FromTrust makes the verifier serve an Updater.
func FromTrust(c *trust.Client) Trust { return verifier{c} }

type verifier struct{ c *trust.Client }

func (v verifier) OfferCurrent(payload []byte) error {
	return trustErr(v.c.OfferCurrent(payload))
}

func (v verifier) OfferRole(role string, version int64, raw []byte) error {
	return trustErr(v.c.OfferRole(role, version, raw))
}

func (v verifier) Refresh() error { return trustErr(v.c.Refresh()) }

func (v verifier) Select(device string, labels map[string]string) (Order, error) {
	o, err := v.c.Select(device, labels)
	if err != nil || o == nil { // a nil *trust.Order must not become an Order
		return nil, trustErr(err)
	}
	return order{o}, nil
}

type order struct{ o *trust.Order }

func (o order) Plan() wire.Plan   { return o.o.Plan() }
func (o order) Ref() wire.BlobRef { return o.o.Ref() }

func (o order) Verify(manifest []byte) (*wire.Manifest, error) {
	r, err := o.o.Verify(manifest)
	if err != nil {
		return nil, trustErr(err)
	}
	return r.Manifest(), nil
}

// trustErr puts the verifier's reason on its error. Waiting for a part is no
// refusal, but hides none: whoever can make a device wait must not silence what
// else it found. The part that is missing can be found in the error either way.
func trustErr(err error) error {
	if err == nil {
		return nil
	}
	reason := trust.Reason(err)
	if _, waits := errors.AsType[*trust.MissingError](err); waits && reason == wire.ReasonNone {
		return errors.Join(ErrWait, err)
	}
	return &Refusal{Reason: reason, Message: err.Error(), Err: err}
}
