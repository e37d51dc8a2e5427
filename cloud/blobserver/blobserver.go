// Package blobserver gives blobs to devices over HTTPS, range by range: what a
// device cannot get, or not quickly enough, through the broker.
//
// A device proves itself by the certificate it also shows the broker. It is
// given only what Config.Allowed grants it, at most a window a request, within a
// bucket that all ways of serving share (Config.Pay) and a rate of its own; so
// many at a time and no more, for each device and in all.
//
//	GET /v1/blob/{sha256}
//	Range: bytes={from}-{to}     one range, at most 1 MiB; needed
//
//	206  the bytes, with Content-Range
//	401  no certificate of this fleet
//	404  no such blob, or not for this device: which of the two is not said
//	416  no range, several, or one outside the blob
//	429  too much at once, or too much of this blob; Retry-After in seconds
package blobserver

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/droverhq/drover/agent/wire"
)

// MaxRange bounds one answer, in bytes: a device's window.
const MaxRange = 16 * wire.ChunkSize

// Config is what a Server needs. The bounds have defaults.
type Config struct {
	// Member says who a verified client certificate belongs to; an error
	// means that it is no device, or is revoked.
	Member func(*x509.Certificate) (device string, err error)
	// Allowed is the length of a blob that a device may have; an error says
	// that it may not.
	Allowed func(ctx context.Context, device, digest string) (int64, error)
	// Pay says whether a device may have that many chunks more of a blob.
	Pay func(device, digest string, size int64, chunks int) bool
	// Read reads into p from an offset of a blob.
	Read   func(ctx context.Context, digest string, p []byte, off int64) (int, error)
	Logger *slog.Logger

	Rate      float64 // bytes a second of one device; default 4 MiB, four times that at once
	PerDevice int     // answers at a time; default 2
	All       int     // of all devices; default 64
}

const maxDevices = 1 << 14

// Stats count since the start.
type Stats struct{ Answers, Bytes, Refused, Throttled int64 }

// Server is the handler of wire.PathBlob. Its server must ask for client
// certificates, verify them, and have timeouts. It is safe for concurrent use.
type Server struct {
	cfg Config
	all chan struct{}

	answers, bytes, refused, throttled atomic.Int64

	mu      sync.Mutex
	devices map[string]*device
}

type device struct {
	limit *rate.Limiter
	busy  int
}

// New makes a Server.
func New(c Config) *Server {
	if c.Rate <= 0 {
		c.Rate = 4 << 20
	}
	if c.PerDevice <= 0 {
		c.PerDevice = 2
	}
	if c.All <= 0 {
		c.All = 64
	}
	return &Server{cfg: c, all: make(chan struct{}, c.All), devices: map[string]*device{}}
}

// Stats returns the counters.
func (s *Server) Stats() Stats {
	return Stats{s.answers.Load(), s.bytes.Load(), s.refused.Load(), s.throttled.Load()}
}

// refusal is an answer without bytes.
type refusal struct {
	status int
	text   string
	err    error // for the log
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, no := s.who(r)
	if no == nil {
		no = s.serve(w, r, name)
	}
	if no == nil {
		return
	}
	switch no.status {
	case http.StatusTooManyRequests:
		s.throttled.Add(1)
		w.Header().Set("Retry-After", "5")
	default:
		s.refused.Add(1)
	}
	s.cfg.Logger.Warn("blob refused", "device", name, "remote", r.RemoteAddr, "status", no.status, "reason", no.text, "error", no.err)
	http.Error(w, no.text, no.status)
}

func (s *Server) who(r *http.Request) (string, *refusal) {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return "", &refusal{http.StatusUnauthorized, "a device's certificate is needed", nil}
	}
	name, err := s.cfg.Member(r.TLS.VerifiedChains[0][0])
	if err != nil {
		return "", &refusal{http.StatusUnauthorized, "this certificate is not a device's, or is revoked", err}
	}
	return name, nil
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request, name string) *refusal {
	if r.Method != http.MethodGet {
		return &refusal{http.StatusMethodNotAllowed, "only GET", nil}
	}
	digest, ok := strings.CutPrefix(r.URL.Path, wire.PathBlob)
	if !ok || !wire.ValidDigest(digest) {
		return &refusal{http.StatusNotFound, "no such blob", nil}
	}
	leave, ok := s.enter(name)
	if !ok {
		return &refusal{http.StatusTooManyRequests, "too many requests at a time", nil}
	}
	defer leave()
	size, err := s.cfg.Allowed(r.Context(), name, digest)
	if err != nil {
		return &refusal{http.StatusNotFound, "no such blob", err}
	}
	from, to, err := parseRange(r.Header.Values("Range"), size)
	if err != nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes */%d", size))
		return &refusal{http.StatusRequestedRangeNotSatisfiable, err.Error(), nil}
	}
	chunks := int((to-1)/wire.ChunkSize - from/wire.ChunkSize + 1)
	if !s.cfg.Pay(name, digest, size, chunks) || !s.afford(name, to-from) {
		return &refusal{http.StatusTooManyRequests, "too much of this blob", nil}
	}
	return s.send(w, r, digest, from, to, size)
}

func (s *Server) send(w http.ResponseWriter, r *http.Request, digest string, from, to, size int64) *refusal {
	buf := make([]byte, min(wire.ChunkSize, to-from))
	for off := from; off < to; {
		p := buf[:min(int64(len(buf)), to-off)]
		n, err := s.cfg.Read(r.Context(), digest, p, off)
		if n < len(p) {
			if off == from {
				return &refusal{http.StatusInternalServerError, "the blob cannot be read", err}
			}
			s.cfg.Logger.Error("blob cut short", "blob", digest, "at", off, "error", errors.Join(err, io.ErrUnexpectedEOF))
			return nil // the length tells the device
		}
		if off == from {
			h := w.Header()
			h.Set("Content-Type", "application/octet-stream")
			h.Set("Cache-Control", "no-store")
			h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to-1, size))
			h.Set("Content-Length", strconv.FormatInt(to-from, 10))
			w.WriteHeader(http.StatusPartialContent)
			s.answers.Add(1)
		}
		if _, err := w.Write(p); err != nil {
			return nil // the device is gone
		}
		s.bytes.Add(int64(n))
		off += int64(n)
	}
	return nil
}

// enter takes a place; leave gives it back.
func (s *Server) enter(name string) (leave func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.device(name)
	if d.busy >= s.cfg.PerDevice {
		return nil, false
	}
	select {
	case s.all <- struct{}{}:
	default:
		return nil, false
	}
	d.busy++
	return func() {
		<-s.all
		s.mu.Lock()
		d.busy--
		s.mu.Unlock()
	}, true
}

func (s *Server) device(name string) *device {
	d := s.devices[name]
	if d == nil {
		if len(s.devices) >= maxDevices {
			for n, o := range s.devices {
				if o.busy == 0 {
					delete(s.devices, n) // bounds memory; what it forgives is one burst
				}
			}
		}
		d = &device{limit: rate.NewLimiter(rate.Limit(s.cfg.Rate), max(int(4*s.cfg.Rate), MaxRange))}
		s.devices[name] = d
	}
	return d
}

func (s *Server) afford(name string, n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.device(name).limit
	return r.AllowN(time.Now(), int(n))
}

// parseRange reads the one range of a request: [from, to) within a blob.
func parseRange(values []string, size int64) (from, to int64, err error) {
	if len(values) != 1 {
		return 0, 0, errors.New("one Range is needed")
	}
	spec, ok := strings.CutPrefix(values[0], "bytes=")
	a, b, dash := strings.Cut(spec, "-")
	if !ok || !dash {
		return 0, 0, errors.New("the Range must be bytes=FROM-TO")
	}
	first, err1 := strconv.ParseUint(a, 10, 62)
	last, err2 := strconv.ParseUint(b, 10, 62)
	if err1 != nil || err2 != nil || last < first {
		return 0, 0, errors.New("the Range must be bytes=FROM-TO")
	}
	from, to = int64(first), int64(last)+1
	if from >= size || to > size {
		return 0, 0, errors.New("the Range is outside of the blob")
	}
	if to-from > MaxRange {
		return 0, 0, fmt.Errorf("the Range is over %d bytes", MaxRange)
	}
	return from, to, nil
}
