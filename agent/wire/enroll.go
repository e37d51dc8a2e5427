package wire

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
)

// Paths of the hub's HTTPS service. A blob is at PathBlob + its digest, for
// members alone, who prove themselves by their certificate.
const (
	PathEnroll = "/v1/enroll"
	PathBlob   = "/v1/blob/"
)

// MaxSources bounds the list of places that serve blobs over HTTPS.
const MaxSources = 8

// Token is what an operator carries to a new device: where the hub is, how to
// know it, and a secret that works once. Its text form is one word.
type Token struct {
	URL    string `json:"url"`  // https://host:port
	Pin    string `json:"pin"`  // SHA-256 of the hub certificate's public key (SPKI), hexadecimal
	Root   string `json:"root"` // SHA-256 of root.json version 1 … the one to begin with
	Fleet  string `json:"fleet"`
	Secret string `json:"secret"` // ≥ 128 random bits
}

const tokenPrefix = "drover1."

// String is the token's text form.
func (t Token) String() string {
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(Encode(t))
}

// ParseToken reads a token's text form.
func ParseToken(s string) (Token, error) {
	var t Token
	b64, ok := strings.CutPrefix(strings.TrimSpace(s), tokenPrefix)
	if !ok || len(s) > 4096 {
		return t, fmt.Errorf("%w: an enrolment token begins with %q", ErrMalformed, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(b64)
	if err == nil {
		err = json.Unmarshal(b, &t)
	}
	if err != nil {
		return Token{}, fmt.Errorf("%w: enrolment token is damaged; copy it whole", ErrMalformed)
	}
	if !strings.HasPrefix(t.URL, "https://") || !ValidDigest(t.Pin) || !ValidDigest(t.Root) || !ValidName(t.Fleet) || len(t.Secret) < 16 {
		return Token{}, fmt.Errorf("%w: enrolment token lacks a part", ErrMalformed)
	}
	return t, nil
}

// EnrollRequest is the body of a POST to PathEnroll.
type EnrollRequest struct {
	V      int    `json:"v"`
	Secret string `json:"secret"`
	Device string `json:"device"`
	CSR    []byte `json:"csr"` // DER, ECDSA P-256, subject common name = device
}

// EnrollResponse makes a device a member.
type EnrollResponse struct {
	V      int      `json:"v"`
	Fleet  string   `json:"fleet"`
	Device string   `json:"device"`
	Chain  [][]byte `json:"chain"`  // DER: the device's certificate, then intermediates
	CA     [][]byte `json:"ca"`     // DER: what the broker's certificate must lead to
	Broker string   `json:"broker"` // host:port, MQTT over TLS
	Root   []byte   `json:"root"`   // root.json, whose digest is in the token
	// Sources serve blobs by HTTPS range requests (PathBlob): https://host:port.
	Sources []string `json:"sources,omitempty"`
}

// EnrollError is the body of a refusal.
type EnrollError struct {
	V     int    `json:"v"`
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}
