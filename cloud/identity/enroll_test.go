package identity_test

import (
	"bytes"
	"context"
	"crypto/elliptic"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
)

var rootJSON = []byte(`{"signed":"root"}`)

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// site is a hub that enrols.
type site struct {
	a        *identity.Authority
	store    *memory
	url      string
	replaced atomic.Int64
	root     []byte
}

func newSite(t *testing.T) *site {
	t.Helper()
	a, _ := create(t, identity.Options{})
	s := &site{a: a, store: newMemory(), root: rootJSON}
	srv := httptest.NewUnstartedServer(s.handler())
	srv.TLS = a.HTTPSConfig()
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(srv.Close)
	s.url = srv.URL
	return s
}

func (s *site) handler() http.Handler {
	return identity.EnrollHandler(identity.EnrollConfig{
		Authority: s.a, Tokens: s.store, Devices: s.store, Broker: "127.0.0.1:8883",
		Root:     func(context.Context) ([]byte, error) { return s.root, nil },
		Replaced: func(string) { s.replaced.Add(1) },
		Log:      slog.New(slog.DiscardHandler),
	})
}

func (s *site) token(t *testing.T, change func(*identity.TokenRequest)) wire.Token {
	t.Helper()
	q := identity.TokenRequest{URL: s.url, Root: digest(rootJSON)}
	if change != nil {
		change(&q)
	}
	tok, err := s.a.NewToken(t.Context(), s.store, q)
	if err != nil {
		t.Fatal(err)
	}
	return tok
}

func (s *site) enroll(t *testing.T, token, device string) (enroll.Identity, error) {
	t.Helper()
	dir := t.TempDir()
	key, err := enroll.SoftwareKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	return enroll.Enroll(t.Context(), dir, token, device, key)
}

func refusedWith(err error, status int) bool {
	var r *enroll.RefusedError
	return errors.As(err, &r) && r.Status == status
}

func TestEnrolment(t *testing.T) {
	s := newSite(t)
	tok := s.token(t, nil).String()
	dir := t.TempDir()
	key, err := enroll.SoftwareKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	id, err := enroll.Enroll(t.Context(), dir, tok, "cam-1", key)
	if err != nil {
		t.Fatal(err)
	}
	if id.Fleet != "yard" || id.Broker != "127.0.0.1:8883" || !bytes.Equal(id.RootJSON, rootJSON) {
		t.Errorf("got %+v", id)
	}
	again, err := enroll.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	same, err := enroll.SoftwareKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Certificate(same); err != nil {
		t.Errorf("certificate after loading: %v", err)
	}
	if _, err := again.Certificate(newKey(t, elliptic.P256())); err == nil {
		t.Error("the certificate is taken with a stranger's key")
	}
	if _, err := s.enroll(t, tok, "cam-2"); !refusedWith(err, http.StatusForbidden) {
		t.Errorf("token used twice: %v", err)
	}
}

func TestOneTokenManyDevicesAtOnce(t *testing.T) {
	s := newSite(t)
	tok := s.token(t, nil).String()
	var won atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := s.enroll(t, tok, "cam-"+string(rune('a'+i))); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	if won.Load() != 1 {
		t.Errorf("%d devices enrolled with one token", won.Load())
	}
}

func TestReplacingADevice(t *testing.T) {
	s := newSite(t)
	if _, err := s.enroll(t, s.token(t, nil).String(), "cam-1"); err != nil {
		t.Fatal(err)
	}
	first := s.store.devices["cam-1"]
	if _, err := s.enroll(t, s.token(t, nil).String(), "cam-1"); !refusedWith(err, http.StatusConflict) {
		t.Errorf("second device of the name: %v", err)
	}
	if _, err := s.enroll(t, s.token(t, func(q *identity.TokenRequest) { q.Replace = true }).String(), "cam-1"); err != nil {
		t.Fatal(err)
	}
	if !s.a.Revoked(first) || s.replaced.Load() != 1 {
		t.Error("the former certificate is still good")
	}
	// The holder of a token cannot make it a replacing one.
	tok := s.token(t, nil)
	tok.Secret = "r" + tok.Secret[1:]
	if _, err := s.enroll(t, tok.String(), "cam-1"); !refusedWith(err, http.StatusForbidden) {
		t.Errorf("altered secret: %v", err)
	}
}

func TestEnrolmentRefused(t *testing.T) {
	s := newSite(t)
	other, _ := create(t, identity.Options{})
	wrongPin := s.token(t, nil)
	wrongPin.Pin = other.Pin()
	wrongFleet := s.token(t, nil)
	wrongFleet.Fleet = "other"
	lapsed := s.token(t, func(q *identity.TokenRequest) { q.Valid = time.Nanosecond })
	wrongRoot := s.token(t, func(q *identity.TokenRequest) { q.Root = digest([]byte("other")) })
	unknown := s.token(t, nil)
	unknown.Secret = strings.Repeat("n", 27)
	for name, c := range map[string]struct {
		token, device string
		want          func(error) bool
	}{
		"wrong pin":     {wrongPin.String(), "cam-1", func(err error) bool { return errors.Is(err, enroll.ErrPin) }},
		"wrong fleet":   {wrongFleet.String(), "cam-1", func(err error) bool { return errors.Is(err, enroll.ErrAnswer) }},
		"wrong root":    {wrongRoot.String(), "cam-2", func(err error) bool { return errors.Is(err, enroll.ErrAnswer) }},
		"lapsed":        {lapsed.String(), "cam-1", func(err error) bool { return refusedWith(err, http.StatusForbidden) }},
		"unknown":       {unknown.String(), "cam-1", func(err error) bool { return refusedWith(err, http.StatusForbidden) }},
		"reserved name": {s.token(t, nil).String(), "hub", func(err error) bool { return refusedWith(err, http.StatusBadRequest) }},
		"bad name":      {s.token(t, nil).String(), "Cam/1", func(err error) bool { return errors.Is(err, enroll.ErrName) }},
		"cut token":     {s.token(t, nil).String()[:40], "cam-1", func(err error) bool { return errors.Is(err, wire.ErrMalformed) }},
	} {
		if _, err := s.enroll(t, c.token, c.device); !c.want(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBadBodies(t *testing.T) {
	s := newSite(t)
	h := s.handler()
	for name, c := range map[string]struct {
		method, body string
		status       int
	}{
		"empty":         {http.MethodPost, "", http.StatusBadRequest},
		"no JSON":       {http.MethodPost, "\x00\x01", http.StatusBadRequest},
		"wrong version": {http.MethodPost, `{"v":9}`, http.StatusBadRequest},
		"no CSR":        {http.MethodPost, `{"v":1,"secret":"x","device":"cam-1"}`, http.StatusBadRequest},
		"oversize":      {http.MethodPost, `{"v":1,"secret":"` + strings.Repeat("x", 20<<10) + `"}`, http.StatusRequestEntityTooLarge},
		"GET":           {http.MethodGet, "", http.StatusMethodNotAllowed},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, wire.PathEnroll, strings.NewReader(c.body)))
		if w.Code != c.status {
			t.Errorf("%s: status %d, want %d", name, w.Code, c.status)
		}
		var e wire.EnrollError
		if c.method == http.MethodPost && (json.Unmarshal(w.Body.Bytes(), &e) != nil || e.Error == "") {
			t.Errorf("%s: body %q is no EnrollError", name, w.Body)
		}
	}
}

func TestRateLimit(t *testing.T) {
	h := newSite(t).handler()
	try := func(addr string) int {
		q := httptest.NewRequest(http.MethodPost, wire.PathEnroll, io.NopCloser(strings.NewReader("{}")))
		q.RemoteAddr = addr
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		return w.Code
	}
	limited := false
	for range 100 {
		limited = limited || try("192.0.2.1:5") == http.StatusTooManyRequests
	}
	if !limited {
		t.Error("no limit")
	}
	if try("192.0.2.2:5") == http.StatusTooManyRequests {
		t.Error("one address shuts out another")
	}
}

func FuzzEnrolBody(f *testing.F) {
	a, err := identity.Create(f.TempDir(), "yard", nil, identity.Options{})
	if err != nil {
		f.Fatal(err)
	}
	good := wire.Encode(wire.EnrollRequest{V: 1, Secret: strings.Repeat("n", 27), Device: "cam-1", CSR: csrFor(f, "cam-1", newKey(f, elliptic.P256()))})
	f.Add(good)
	f.Add([]byte(`{"v":1}`))
	store := newMemory()
	h := identity.EnrollHandler(identity.EnrollConfig{
		Authority: a, Tokens: store, Devices: store, Broker: "h:1", Log: slog.New(slog.DiscardHandler),
		Root: func(context.Context) ([]byte, error) { return rootJSON, nil },
	})
	var n atomic.Uint32
	f.Fuzz(func(t *testing.T, b []byte) {
		q := httptest.NewRequest(http.MethodPost, wire.PathEnroll, bytes.NewReader(b))
		q.RemoteAddr = fmt.Sprintf("address %d:1", n.Add(1)) // no limit
		w := httptest.NewRecorder()
		h.ServeHTTP(w, q)
		if w.Code == http.StatusOK {
			t.Error("enrolled without a token")
		}
	})
}
