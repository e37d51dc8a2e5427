package wire

import (
	"fmt"
	"time"
)

// Renew asks for the device's next certificate.
type Renew struct {
	Header
	CSR []byte `json:"csr"` // DER, signed with the key of enrolment, subject common name = device
}

// Certificate is what the hub says of a device's certificate, asked or unasked.
type Certificate struct {
	V     int      `json:"v"`
	At    int64    `json:"at"`              // Unix seconds by the hub's clock
	Chain [][]byte `json:"chain,omitempty"` // DER: the device's certificate, then intermediates
	// Renew asks the device to send Renew, at a moment of its choice within
	// Spread seconds.
	Renew  bool   `json:"renew,omitempty"`
	Spread int64  `json:"spread,omitempty"`
	Error  string `json:"error,omitempty"` // why there is no chain
	Hint   string `json:"hint,omitempty"`
}

// Bounds of Renew and Certificate.
const (
	MaxRenew     = 8 << 10 // bytes of a Renew
	MaxChain     = 5       // certificates of a chain
	MaxChainCert = 8 << 10 // bytes of one of them
	MaxSpread    = 24 * time.Hour
)

// DecodeRenew decodes and checks a Renew.
func DecodeRenew(b []byte) (*Renew, error) {
	r := new(Renew)
	if err := Decode(b, MaxRenew, r); err != nil {
		return nil, err
	}
	if len(r.CSR) == 0 {
		return nil, fmt.Errorf("%w: renewal without a certificate request", ErrMalformed)
	}
	return r, nil
}

// DecodeCertificate decodes and checks the bounds of a Certificate; the chain
// is not looked into.
func DecodeCertificate(b []byte) (*Certificate, error) {
	c := new(Certificate)
	if err := Decode(b, MaxMessage, c); err != nil {
		return nil, err
	}
	if len(c.Chain) > MaxChain || c.Spread < 0 || c.Spread > int64(MaxSpread/time.Second) || c.At < 0 {
		return nil, fmt.Errorf("%w: chain of %d certificates, spread %d s, at %d", ErrMalformed, len(c.Chain), c.Spread, c.At)
	}
	for _, der := range c.Chain {
		if len(der) == 0 || len(der) > MaxChainCert {
			return nil, fmt.Errorf("%w: certificate of %d bytes", ErrMalformed, len(der))
		}
	}
	return c, nil
}
