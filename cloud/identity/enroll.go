package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/droverhq/drover/agent/wire"
)

// DeviceStore remembers which devices are members.
type DeviceStore interface {
	// Enrolled says whether a device of this name is a member.
	Enrolled(ctx context.Context, device string) (bool, error)
	// AddDevice records a certificate, durably before it returns. For a device
	// that is a member already it replaces the former certificate, whose
	// serial number it returns; else "".
	AddDevice(ctx context.Context, c Issued) (former string, err error)
}

// EnrollConfig is what the enrolment service needs.
type EnrollConfig struct {
	Authority *Authority
	Tokens    TokenStore
	Devices   DeviceStore
	// Broker is the host:port that devices connect to.
	Broker string
	// Sources serve blobs over HTTPS: https://host:port. May be empty.
	Sources []string
	// Root returns root.json, the version whose digest stands in tokens.
	Root func(ctx context.Context) ([]byte, error)
	// Replaced is called after a device got a new certificate in place of
	// another, so that its session ends. May be nil.
	Replaced func(device string)
	Log      *slog.Logger
}

const (
	maxEnrollBody  = 16 << 10
	enrollPerSec   = 1
	enrollBurst    = 20
	maxPeers       = 4096
	enrollDeadline = 20 * time.Second
)

// enroller serves enrolment.
type enroller struct {
	EnrollConfig

	mu    sync.Mutex
	peers map[string]*rate.Limiter
}

// EnrollHandler serves wire.PathEnroll. Its server must use HTTPSConfig and
// timeouts for headers and bodies.
func EnrollHandler(c EnrollConfig) http.Handler {
	e := &enroller{EnrollConfig: c, peers: map[string]*rate.Limiter{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+wire.PathEnroll, e.serve)
	return mux
}

// refusal is an answer other than 200.
type refusal struct {
	status int
	text   string
	hint   string
}

func (e *enroller) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), enrollDeadline)
	defer cancel()
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !e.allow(r.RemoteAddr) {
		w.Header().Set("Retry-After", "10")
		e.refuse(w, r, "", &refusal{http.StatusTooManyRequests, "too many attempts from this address", "wait a minute, then try again"})
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxEnrollBody))
	if err != nil {
		e.refuse(w, r, "", &refusal{http.StatusRequestEntityTooLarge, "request too large or broken off", ""})
		return
	}
	var q wire.EnrollRequest
	if err := wire.Decode(body, maxEnrollBody, &q); err != nil {
		e.refuse(w, r, "", &refusal{http.StatusBadRequest, err.Error(), "device and hub may be of different versions"})
		return
	}
	resp, no := e.enroll(ctx, q)
	if no != nil {
		e.refuse(w, r, q.Device, no)
		return
	}
	e.Log.Info("device enrolled", "device", q.Device, "remote", r.RemoteAddr)
	_ = json.NewEncoder(w).Encode(resp) // the device is gone: it needs another token
}

// enroll checks all that costs nothing before it spends the token, and spends
// it before it says anything that only members may know.
func (e *enroller) enroll(ctx context.Context, q wire.EnrollRequest) (*wire.EnrollResponse, *refusal) {
	if _, err := checkCSR(q.Device, q.CSR); err != nil {
		return nil, &refusal{http.StatusBadRequest, err.Error(), ""}
	}
	if name, bound := boundTo(q.Secret); bound && name != q.Device {
		return nil, &refusal{http.StatusForbidden, fmt.Sprintf("this token is for a device named %q", name), "set the device's name, or ask the operator for another token"}
	}
	root, err := e.Root(ctx)
	if err != nil {
		return nil, e.internal("root.json", err)
	}
	if err := e.Tokens.ConsumeToken(ctx, hashSecret(q.Secret), q.Device); err != nil {
		return nil, e.tokenRefusal(err)
	}
	member, err := e.Devices.Enrolled(ctx, q.Device)
	if err != nil {
		return nil, e.internal("look up device", err)
	}
	if member && !mayReplace(q.Secret) {
		return nil, &refusal{http.StatusConflict, "a device with this name is enrolled already",
			"choose another name, or make a token that may replace it; this token is spent"}
	}
	c, err := e.Authority.IssueDevice(q.Device, q.CSR)
	if err != nil {
		return nil, e.internal("issue certificate", err)
	}
	former, err := e.Devices.AddDevice(ctx, c)
	if err != nil {
		return nil, e.internal("record device", err)
	}
	if former != "" {
		err := errors.Join(e.Authority.Revoke(former), e.Authority.RevokeDevice(q.Device, c.Serial))
		if err != nil {
			return nil, e.internal("revoke former certificates", err)
		}
		if e.Replaced != nil {
			e.Replaced(q.Device)
		}
	}
	return &wire.EnrollResponse{
		V: wire.Version, Fleet: e.Authority.Fleet(), Device: q.Device,
		Chain: c.Chain, CA: [][]byte{e.Authority.CA()}, Broker: e.Broker, Sources: e.Sources, Root: root,
	}, nil
}

// tokenRefusal gives an unknown and a spent token different words: whoever
// holds 160 right bits may know that they were right.
func (e *enroller) tokenRefusal(err error) *refusal {
	const again = "ask the operator for a new token"
	switch {
	case errors.Is(err, ErrTokenSpent):
		return &refusal{http.StatusForbidden, "token was used already", again + "; one that may replace, if this device was enrolled by it"}
	case errors.Is(err, ErrTokenLapsed):
		return &refusal{http.StatusForbidden, "token has expired", again}
	case errors.Is(err, ErrTokenUnknown):
		return &refusal{http.StatusForbidden, "token is not known here", "copy it whole, or " + again}
	}
	return e.internal("token", err)
}

func (e *enroller) internal(what string, err error) *refusal {
	e.Log.Error("enrolment failed", "at", what, "error", err)
	return &refusal{http.StatusInternalServerError, "the hub could not do it (" + what + ")", "see the hub's log"}
}

func (e *enroller) refuse(w http.ResponseWriter, r *http.Request, device string, no *refusal) {
	e.Log.Warn("enrolment refused", "device", device, "remote", r.RemoteAddr, "status", no.status, "reason", no.text)
	w.WriteHeader(no.status)
	_ = json.NewEncoder(w).Encode(wire.EnrollError{V: wire.Version, Error: no.text, Hint: no.hint})
}

// allow limits each address by itself, so that one cannot shut out the others.
func (e *enroller) allow(remote string) bool {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	l := e.peers[host]
	if l == nil {
		if len(e.peers) >= maxPeers {
			clear(e.peers) // bounded memory matters more than old sins
		}
		l = rate.NewLimiter(enrollPerSec, enrollBurst)
		e.peers[host] = l
	}
	return l.Allow()
}
