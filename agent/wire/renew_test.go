package wire_test

import (
	"errors"
	"testing"

	"github.com/droverhq/drover/agent/wire"
)

func TestRenewBounds(t *testing.T) {
	for name, b := range map[string][]byte{
		"no request":     []byte(`{"v":1}`),
		"over its limit": wire.Encode(wire.Renew{Header: header(1), CSR: make([]byte, wire.MaxRenew)}),
		"no message":     []byte(`renew`),
	} {
		if _, err := wire.DecodeRenew(b); !errors.Is(err, wire.ErrMalformed) && !errors.Is(err, wire.ErrTooLarge) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]wire.Certificate{
		"long chain":        {V: 1, Chain: [][]byte{{1}, {1}, {1}, {1}, {1}, {1}}},
		"empty certificate": {V: 1, Chain: [][]byte{{}}},
		"huge certificate":  {V: 1, Chain: [][]byte{make([]byte, wire.MaxChainCert+1)}},
		"spread backwards":  {V: 1, Spread: -1},
		"spread of years":   {V: 1, Spread: 1 << 40},
		"before time":       {V: 1, At: -1},
	} {
		if _, err := wire.DecodeCertificate(wire.Encode(c)); !errors.Is(err, wire.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRenew(f *testing.F) {
	f.Add(wire.Encode(wire.Renew{Header: header(1), CSR: []byte{0x30, 0}}))
	f.Add(wire.Encode(wire.Certificate{V: 1, At: 1790000000, Chain: [][]byte{{0x30, 0}}, Renew: true, Spread: 60}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := wire.DecodeRenew(b); err == nil && len(r.CSR) == 0 {
			t.Error("a renewal without a request")
		}
		if c, err := wire.DecodeCertificate(b); err == nil && (len(c.Chain) > wire.MaxChain || c.Spread < 0) {
			t.Error("a certificate out of bounds")
		}
	})
}
