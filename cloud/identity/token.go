package identity

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// What a TokenStore answers when a token is no good.
var (
	ErrTokenUnknown = errors.New("identity: unknown token")
	ErrTokenSpent   = errors.New("identity: token was used already")
	ErrTokenLapsed  = errors.New("identity: token has expired")
)

// TokenStore remembers tokens by the SHA-256 of their secret, hexadecimal.
type TokenStore interface {
	// AddToken stores a token that may be consumed once until expires.
	AddToken(ctx context.Context, hash string, expires time.Time) error
	// ConsumeToken spends a token for a device, durably before it returns; of
	// many that try at once exactly one succeeds. Errors wrap ErrTokenUnknown,
	// ErrTokenSpent or ErrTokenLapsed.
	ConsumeToken(ctx context.Context, hash, device string) error
}

// TokenRequest says what token is wanted.
type TokenRequest struct {
	URL     string        // https://host:port of the hub
	Root    string        // SHA-256 of root.json, hexadecimal
	Valid   time.Duration // 0 means 24 hours
	Replace bool          // may take the name of a device that is enrolled already
	Device  string        // the only name it is good for; "" for any
}

const (
	onceSecret    = "n" // first letter of a secret for a new device
	replaceSecret = "r" // first letter of a secret that may replace one
	nameMark      = "." // stands before the name that a secret is bound to
)

// NewToken makes a token and stores the digest of its secret.
func (a *Authority) NewToken(ctx context.Context, store TokenStore, r TokenRequest) (wire.Token, error) {
	raw := make([]byte, 20)
	if _, err := rand.Read(raw); err != nil {
		return wire.Token{}, fmt.Errorf("identity: new token: %w", err)
	}
	kind := onceSecret
	if r.Replace {
		kind = replaceSecret
	}
	secret := kind + base64.RawURLEncoding.EncodeToString(raw)
	if r.Device != "" {
		if !ValidDevice(r.Device) {
			return wire.Token{}, fmt.Errorf("identity: new token: %w: device %q", ErrName, r.Device)
		}
		secret += nameMark + r.Device
	}
	t := wire.Token{URL: r.URL, Pin: a.Pin(), Root: r.Root, Fleet: a.fleet, Secret: secret}
	if _, err := wire.ParseToken(t.String()); err != nil {
		return wire.Token{}, fmt.Errorf("identity: new token: %w", err)
	}
	if r.Valid <= 0 {
		r.Valid = 24 * time.Hour
	}
	if err := store.AddToken(ctx, hashSecret(t.Secret), a.now().Add(r.Valid)); err != nil {
		return wire.Token{}, fmt.Errorf("identity: new token: %w", err)
	}
	return t, nil
}

func hashSecret(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func mayReplace(secret string) bool { return strings.HasPrefix(secret, replaceSecret) }

// boundTo is the name that a secret is good for. Whoever changes it has another
// secret, which nobody knows here.
func boundTo(secret string) (device string, bound bool) {
	_, device, bound = strings.Cut(secret, nameMark)
	return device, bound
}
