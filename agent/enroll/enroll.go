package enroll

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// The kinds of failure.
var (
	// ErrPin: what answers at the hub's address has another key than the token
	// says.
	ErrPin = errors.New("enroll: this is not the hub that the token is from")
	// ErrAnswer: the hub's answer does not fit the token or the device.
	ErrAnswer = errors.New("enroll: the hub's answer was refused")
	// ErrName: the device may not have this name.
	ErrName = errors.New("enroll: not a device name (1 to 63 of a-z, 0-9 and hyphen)")
)

// RefusedError is a refusal by the hub.
type RefusedError struct {
	Status int    // HTTP
	Text   string // why
	Hint   string // what to do; may be empty
}

// Error implements error.
func (e *RefusedError) Error() string {
	s := "enroll: refused by the hub: " + e.Text
	if e.Hint != "" {
		s += " (" + e.Hint + ")"
	}
	return s
}

const (
	timeout     = 30 * time.Second
	maxResponse = 192 << 10
)

// Enroll makes this device a member by a token: it sends a certificate request
// for key, checks the answer and writes the identity into dir. key must be
// ECDSA P-256. ErrName, ErrPin, ErrAnswer, *RefusedError, wire.ErrMalformed for
// a damaged token. When it fails after the hub has answered, the token is
// spent.
func Enroll(ctx context.Context, dir, token, device string, key crypto.Signer) (Identity, error) {
	t, err := wire.ParseToken(token)
	if err != nil {
		return Identity{}, fmt.Errorf("enroll: %w", err)
	}
	if !wire.ValidName(device) {
		return Identity{}, fmt.Errorf("%w: %q", ErrName, device)
	}
	csr, err := certificateRequest(device, key)
	if err != nil {
		return Identity{}, fmt.Errorf("enroll: certificate request: %w", err)
	}
	// Before the token is spent: the place to keep the identity must exist.
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Identity{}, fmt.Errorf("enroll: %w", err)
	}
	r, err := post(ctx, t, wire.Encode(wire.EnrollRequest{V: wire.Version, Secret: t.Secret, Device: device, CSR: csr}))
	if err != nil {
		return Identity{}, err
	}
	id := Identity{V: wire.Version, Device: device, Fleet: t.Fleet, Broker: r.Broker, Sources: r.Sources, Chain: r.Chain, CA: r.CA, RootJSON: r.Root}
	if err := checkAnswer(t, r, id, key.Public()); err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return id, id.Save(dir)
}

func certificateRequest(device string, key crypto.Signer) ([]byte, error) {
	return x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: device}}, key)
}

func checkAnswer(t wire.Token, r *wire.EnrollResponse, id Identity, key crypto.PublicKey) error {
	if r.Device != id.Device || r.Fleet != t.Fleet {
		return fmt.Errorf("it is for device %q in fleet %q, not %q in %q", r.Device, r.Fleet, id.Device, t.Fleet)
	}
	if sum := sha256.Sum256(r.Root); hex.EncodeToString(sum[:]) != t.Root {
		return errors.New("root.json is not the one the token names")
	}
	return id.check(key)
}

// post sends the request to the hub with the pinned key, and nobody else.
func post(ctx context.Context, t wire.Token, body []byte) (*wire.EnrollResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	tr := &http.Transport{
		TLSClientConfig: &tls.Config{
			MinVersion:         tls.VersionTLS13,
			InsecureSkipVerify: true, // VerifyConnection holds it to the pin instead
			VerifyConnection:   func(s tls.ConnectionState) error { return checkPin(s, t.Pin) },
		},
		DisableKeepAlives: true, MaxResponseHeaderBytes: 16 << 10,
	}
	c := &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	q, err := http.NewRequestWithContext(ctx, http.MethodPost, strings.TrimSuffix(t.URL, "/")+wire.PathEnroll, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	q.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(q)
	if err != nil {
		return nil, fmt.Errorf("enroll: %w", err)
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxResponse+1))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, fmt.Errorf("enroll: read answer: %w", err)
	}
	return decodeAnswer(resp.StatusCode, b)
}

func decodeAnswer(status int, b []byte) (*wire.EnrollResponse, error) {
	if status != http.StatusOK {
		var no wire.EnrollError
		if wire.Decode(b, maxResponse, &no) != nil || no.Error == "" {
			no.Error = http.StatusText(status)
		}
		return nil, &RefusedError{Status: status, Text: printable(no.Error), Hint: printable(no.Hint)}
	}
	r := new(wire.EnrollResponse)
	if err := wire.Decode(b, maxResponse, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	return r, nil
}

func checkPin(s tls.ConnectionState, pin string) error {
	if len(s.PeerCertificates) == 0 {
		return ErrPin
	}
	sum := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
	if hex.EncodeToString(sum[:]) != pin {
		return ErrPin
	}
	return nil
}

// printable makes a text from outside fit for a terminal.
func printable(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) {
			return ' '
		}
		return r
	}, s)
	return s[:min(len(s), 500)]
}
