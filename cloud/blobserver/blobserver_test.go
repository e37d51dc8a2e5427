package blobserver

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a server with a real authority behind it, and one blob that is
// granted to every device but "gate-9".
type fixture struct {
	t         *testing.T
	authority *identity.Authority
	server    *Server
	url       string
	blob      []byte
	digest    string
	paid      atomic.Int64 // chunks
	purse     int64        // chunks that may be paid for
	reads     func(off int64) error
}

func setup(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	a, err := identity.Create(t.TempDir(), "farm", []string{"127.0.0.1"}, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	blob := make([]byte, 20*wire.ChunkSize+5)
	for i := range blob {
		blob[i] = byte(i * 31 >> 3)
	}
	f := &fixture{t: t, authority: a, blob: blob, digest: wire.NewBlobRef(blob).Digest, purse: 1 << 20}
	c := Config{
		Member: func(c *x509.Certificate) (string, error) {
			if a.Revoked(identity.Serial(c)) || !identity.ValidDevice(c.Subject.CommonName) {
				return "", errors.New("no member")
			}
			return c.Subject.CommonName, nil
		},
		Allowed: func(_ context.Context, device, digest string) (int64, error) {
			if digest != f.digest || device == "gate-9" {
				return 0, errors.New("not granted")
			}
			return int64(len(blob)), nil
		},
		Pay: func(_, _ string, _ int64, n int) bool { return f.paid.Add(int64(n)) <= f.purse },
		Read: func(_ context.Context, _ string, p []byte, off int64) (int, error) {
			if f.reads != nil {
				if err := f.reads(off); err != nil {
					return 0, err
				}
			}
			return copy(p, blob[off:]), nil
		},
		Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&c)
	}
	f.server = New(c)
	s := httptest.NewUnstartedServer(f.server)
	s.TLS = a.HTTPSConfig()
	s.TLS.ClientAuth, s.TLS.ClientCAs = tls.VerifyClientCertIfGiven, a.Pool()
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // handshakes that fail on purpose
	s.StartTLS()
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// device is an HTTPS client with a device's certificate.
func (f *fixture) device(name string) (*http.Client, string) {
	f.t.Helper()
	return certified(f.t, f.authority, f.authority.Pool(), name)
}

func certified(t *testing.T, a *identity.Authority, roots *x509.CertPool, name string) (*http.Client, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := a.IssueDevice(name, csr)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(c.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	return client(t, &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{{Certificate: c.Chain, PrivateKey: key}}}), identity.Serial(leaf)
}

func client(t *testing.T, c *tls.Config) *http.Client {
	tr := &http.Transport{TLSClientConfig: c}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

type reply struct {
	status int
	body   []byte
	header http.Header
	err    error // of the body
}

func (f *fixture) ask(c *http.Client, method, path string, ranges ...string) reply {
	f.t.Helper()
	q, err := http.NewRequestWithContext(f.t.Context(), method, f.url+path, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	q.Header["Range"] = ranges
	resp, err := c.Do(q)
	if err != nil {
		f.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return reply{resp.StatusCode, b, resp.Header, err}
}

func TestRanges(t *testing.T) {
	f := setup(t, nil)
	c, _ := f.device("gate-1")
	n := int64(len(f.blob))
	tests := []struct {
		ranges []string
		status int
		from   int64
		to     int64 // exclusive
	}{
		{[]string{"bytes=0-0"}, 206, 0, 1},
		{[]string{"bytes=0-65535"}, 206, 0, wire.ChunkSize},
		{[]string{"bytes=65530-65540"}, 206, 65530, 65541},
		{[]string{fmt.Sprintf("bytes=%d-%d", 4*wire.ChunkSize, 4*wire.ChunkSize+MaxRange-1)}, 206, 4 * wire.ChunkSize, 4*wire.ChunkSize + MaxRange},
		{[]string{fmt.Sprintf("bytes=%d-%d", n-5, n-1)}, 206, n - 5, n},
		{nil, 416, 0, 0},
		{[]string{"bytes=0-1", "bytes=2-3"}, 416, 0, 0},
		{[]string{"bytes=0-1,4-5"}, 416, 0, 0},
		{[]string{"bytes=-5"}, 416, 0, 0},
		{[]string{"bytes=5-"}, 416, 0, 0},
		{[]string{"bytes=5-4"}, 416, 0, 0},
		{[]string{"bytes=+1-4"}, 416, 0, 0},
		{[]string{"chunks=0-1"}, 416, 0, 0},
		{[]string{fmt.Sprintf("bytes=%d-%d", n, n)}, 416, 0, 0},
		{[]string{fmt.Sprintf("bytes=0-%d", n)}, 416, 0, 0},
		{[]string{fmt.Sprintf("bytes=0-%d", MaxRange)}, 416, 0, 0},
		{[]string{"bytes=0-99999999999999999999"}, 416, 0, 0},
	}
	var good, bad int64
	for _, tc := range tests {
		r := f.ask(c, "GET", wire.PathBlob+f.digest, tc.ranges...)
		if r.status != tc.status {
			t.Errorf("%q: status %d, want %d", tc.ranges, r.status, tc.status)
			continue
		}
		if tc.status != 206 {
			bad++
			if got := r.header.Get("Content-Range"); got != fmt.Sprintf("bytes */%d", n) {
				t.Errorf("%q: Content-Range %q", tc.ranges, got)
			}
			continue
		}
		good++
		if want := fmt.Sprintf("bytes %d-%d/%d", tc.from, tc.to-1, n); r.err != nil || !bytes.Equal(r.body, f.blob[tc.from:tc.to]) || r.header.Get("Content-Range") != want {
			t.Errorf("%q: %d bytes, %v, Content-Range %q", tc.ranges, len(r.body), r.err, r.header.Get("Content-Range"))
		}
	}
	if s := f.server.Stats(); s.Answers != good || s.Refused != bad || s.Throttled != 0 {
		t.Errorf("%+v, wanted %d and %d", s, good, bad)
	}
	if f.paid.Load() != 1+1+2+16+1 { // a range that touches two chunks costs two
		t.Errorf("%d chunks paid", f.paid.Load())
	}
}

func TestWhoIsServed(t *testing.T) {
	f := setup(t, nil)
	member, serial := f.device("gate-1")
	other, _ := f.device("gate-9")
	nobody := client(t, &tls.Config{RootCAs: f.authority.Pool()})
	hub := client(t, &tls.Config{RootCAs: f.authority.Pool(), Certificates: []tls.Certificate{f.authority.HubCertificate()}})
	path, one := wire.PathBlob+f.digest, "bytes=0-9"
	tests := []struct {
		name         string
		c            *http.Client
		method, path string
		status       int
	}{
		{"a member", member, "GET", path, 206},
		{"no certificate", nobody, "GET", path, 401},
		{"the hub is no device", hub, "GET", path, 401},
		{"a blob for others", other, "GET", path, 404},
		{"no such blob", member, "GET", wire.PathBlob + strings.Repeat("0", 64), 404},
		{"no digest", member, "GET", wire.PathBlob + "x", 404},
		{"a way out", member, "GET", wire.PathBlob + "%2e%2e%2f" + f.digest, 404},
		{"capitals", member, "GET", wire.PathBlob + strings.ToUpper(f.digest), 404},
		{"not to be written", member, "PUT", path, 405},
	}
	for _, tc := range tests {
		if r := f.ask(tc.c, tc.method, tc.path, one); r.status != tc.status {
			t.Errorf("%s: status %d, want %d", tc.name, r.status, tc.status)
		} else if r.status != 206 && bytes.Contains(r.body, f.blob[:10]) {
			t.Errorf("%s: got bytes", tc.name)
		}
	}
	a, b := f.ask(other, "GET", path, one), f.ask(member, "GET", wire.PathBlob+strings.Repeat("0", 64), one)
	if !bytes.Equal(a.body, b.body) {
		t.Errorf("whether a blob exists is told: %q and %q", a.body, b.body)
	}
	if err := f.authority.Revoke(serial); err != nil {
		t.Fatal(err)
	}
	// The connection is still open from before.
	if r := f.ask(member, "GET", path, one); r.status != 401 {
		t.Errorf("a revoked device: status %d", r.status)
	}
}

func TestAStrangersCertificateIsNotEvenHeard(t *testing.T) {
	f := setup(t, nil)
	stranger, err := identity.Create(t.TempDir(), "farm", nil, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	c, _ := certified(t, stranger, f.authority.Pool(), "gate-1")
	q, err := http.NewRequestWithContext(t.Context(), "GET", f.url+wire.PathBlob+f.digest, nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := c.Do(q); err == nil {
		resp.Body.Close()
		t.Errorf("status %d", resp.StatusCode)
	}
}

func TestWhatADeviceMayHave(t *testing.T) {
	t.Run("the purse", func(t *testing.T) {
		f := setup(t, nil)
		f.purse = 3
		c, _ := f.device("gate-1")
		for i, want := range []int{206, 206, 206, 429} {
			r := f.ask(c, "GET", wire.PathBlob+f.digest, fmt.Sprintf("bytes=%d-%d", i, i))
			if r.status != want || want == 429 && r.header.Get("Retry-After") == "" {
				t.Errorf("request %d: status %d, %v", i, r.status, r.header)
			}
		}
		if s := f.server.Stats(); s.Answers != 3 || s.Bytes != 3 || s.Throttled != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("the rate, of each device for itself", func(t *testing.T) {
		f := setup(t, func(c *Config) { c.Rate = 1 }) // the least: one window at once
		c, _ := f.device("gate-1")
		d, _ := f.device("gate-2")
		whole := fmt.Sprintf("bytes=0-%d", MaxRange-1)
		for i, tc := range []struct {
			c    *http.Client
			want int
		}{{c, 206}, {c, 429}, {d, 206}, {d, 429}} {
			if r := f.ask(tc.c, "GET", wire.PathBlob+f.digest, whole); r.status != tc.want {
				t.Errorf("request %d: status %d, want %d", i, r.status, tc.want)
			}
		}
	})
}

func TestAtATime(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	f := setup(t, func(c *Config) { c.PerDevice, c.All = 1, 2 })
	f.reads = func(int64) error { begun <- struct{}{}; <-release; return nil }
	one := "bytes=0-9"
	a, _ := f.device("gate-1")
	b, _ := f.device("gate-2")
	c, _ := f.device("gate-3")
	ended := make(chan reply, 2)
	for _, d := range []*http.Client{a, b} {
		go func() { ended <- f.ask(d, "GET", wire.PathBlob+f.digest, one) }()
		<-begun
		if d == a {
			if r := f.ask(a, "GET", wire.PathBlob+f.digest, one); r.status != 429 {
				t.Errorf("a second one of the same device: status %d", r.status)
			}
		}
	}
	if r := f.ask(c, "GET", wire.PathBlob+f.digest, one); r.status != 429 {
		t.Errorf("a third device: status %d", r.status)
	}
	close(release)
	for range 2 {
		if r := <-ended; r.status != 206 {
			t.Errorf("status %d", r.status)
		}
	}
	f.reads = nil
	if r := f.ask(c, "GET", wire.PathBlob+f.digest, one); r.status != 206 {
		t.Errorf("when there is room again: status %d", r.status)
	}
}

// A blob that cannot be read is an error at once, or an answer that is visibly
// short; never other bytes.
func TestABlobThatCannotBeRead(t *testing.T) {
	f := setup(t, nil)
	c, _ := f.device("gate-1")
	two := fmt.Sprintf("bytes=0-%d", 2*wire.ChunkSize-1)
	f.reads = func(int64) error { return errors.New("disk") }
	if r := f.ask(c, "GET", wire.PathBlob+f.digest, two); r.status != 500 || bytes.Contains(r.body, []byte("disk")) {
		t.Errorf("status %d, %q", r.status, r.body)
	}
	f.reads = func(off int64) error {
		if off > 0 {
			return errors.New("disk")
		}
		return nil
	}
	if r := f.ask(c, "GET", wire.PathBlob+f.digest, two); r.err == nil || !bytes.HasPrefix(f.blob, r.body) {
		t.Errorf("%d bytes of %d, %v", len(r.body), 2*wire.ChunkSize, r.err)
	}
}

func TestDevicesAreForgotten(t *testing.T) {
	s := New(Config{})
	leave, ok := s.enter("busy")
	if !ok {
		t.Fatal("no place")
	}
	for i := range maxDevices + 10 {
		if !s.afford(fmt.Sprint("d", i), 1) {
			t.Fatal("a first byte is refused")
		}
	}
	if n := len(s.devices); n > maxDevices || s.devices["busy"] == nil {
		t.Errorf("%d devices remembered, the busy one among them: %v", n, s.devices["busy"] != nil)
	}
	leave()
}

func FuzzRange(f *testing.F) {
	for _, s := range []string{"bytes=0-0", "bytes=5-4", "bytes=-1", "bytes=0-1,2-3", "bytes=9-99999999999999999999", ""} {
		f.Add(s, int64(10))
	}
	f.Fuzz(func(t *testing.T, s string, size int64) {
		from, to, err := parseRange([]string{s}, size)
		if err == nil && (from < 0 || to <= from || to > size || to-from > MaxRange) {
			t.Errorf("%q of %d: %d to %d", s, size, from, to)
		}
	})
}
