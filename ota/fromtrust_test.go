package ota

import (
	"crypto"
	"errors"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/ota/trust"
	"github.com/droverhq/drover/test/repo"
)

// Waiting is no refusal, and hides none.
func TestWaitingHidesNoRefusal(t *testing.T) {
	f := repo.New(t)
	f.Roll("first", 1, f.Release("gate", 1))
	good := f.Publish()
	c, err := trust.Open(trust.Options{
		Store: new(trust.Memory), Root: f.Root(), BuildTime: repo.Start(),
		BootID: "boot", Boottime: func() time.Duration { return time.Hour },
	})
	if err != nil {
		t.Fatal(err)
	}
	v := FromTrust(c)
	good.Withhold = []string{wire.RoleModels}
	if err := good.Offer(v); err != nil {
		t.Fatal(err)
	}
	err = v.Refresh()
	var m *trust.MissingError
	if !errors.Is(err, ErrWait) || !errors.As(err, &m) || m.Role != wire.RoleModels {
		t.Fatalf("without models answered %v, want a wait for it", err)
	}
	if r, refused := errors.AsType[*Refusal](err); refused {
		t.Fatalf("a wait counts as refusal %q", r.Reason)
	}

	bad := good.Clone()
	bad.Keys["timestamp"] = []crypto.Signer{repo.Key(t)}
	bad.SealTimestamp()
	if err := bad.Offer(v); err != nil {
		t.Fatal(err)
	}
	err = v.Refresh()
	r, refused := errors.AsType[*Refusal](err)
	if !refused || r.Reason != wire.ReasonSignature || errors.Is(err, ErrWait) {
		t.Fatalf("beside a bad signature answered %v, want the refusal", err)
	}
	if !errors.As(err, &m) || m.Role != wire.RoleModels {
		t.Errorf("the wait for models is lost in %v", err)
	}
}
