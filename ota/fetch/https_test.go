package fetch

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
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/wire"
)

// pair is a server's certificate, signed by itself, and whom it proves.
func pair(t *testing.T) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "hub"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// server serves over TLS and makes a source of it.
func server(t *testing.T, h http.Handler) *HTTPS {
	t.Helper()
	cert, pool := pair(t)
	s := httptest.NewUnstartedServer(h)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	s.StartTLS()
	src, err := NewHTTPS(s.URL, &tls.Config{RootCAs: pool})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { src.Done(""); s.CloseClientConnections(); s.Close() })
	return src
}

// shelf serves one blob by ranges; change spoils what it sends.
type shelf struct {
	blob   []byte
	asked  atomic.Int64
	change func(n int64, w http.ResponseWriter, r *http.Request, from int, b []byte) []byte
}

func (s *shelf) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var from, to int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &from, &to); err != nil || to >= len(s.blob) || from > to {
		http.Error(w, "range", http.StatusRequestedRangeNotSatisfiable)
		return
	}
	b := s.blob[from : to+1]
	h := w.Header()
	h.Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, to, len(s.blob)))
	h.Set("Content-Length", fmt.Sprint(len(b)))
	if n := s.asked.Add(1); s.change != nil {
		if b = s.change(n, w, r, from, b); b == nil {
			return
		}
	}
	w.WriteHeader(http.StatusPartialContent)
	_, _ = w.Write(b) // a client that is gone
}

func bring(t *testing.T, c Config, blob []byte, b *Budget) (Stats, []byte, error) {
	t.Helper()
	f, part := New(c), &memPart{}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	err := f.Fetch(ctx, wire.NewBlobRef(blob), part, b, nil)
	return f.Stats(), part.b, err
}

func TestOverHTTPS(t *testing.T) {
	for _, size := range []int{0, 1, wire.ChunkSize, 40*wire.ChunkSize + 17} {
		blob := randomBlob(size)
		s := &shelf{blob: blob}
		st, got, err := bring(t, Config{Far: []Reader{server(t, s)}}, blob, nil)
		if err != nil || !bytes.Equal(got, blob) || st.Bytes != uint64(size) {
			t.Errorf("%d bytes: %v, %+v", size, err, st)
		}
		if n := s.asked.Load(); n > int64(size/(wire.ChunkSize*Window)+1) {
			t.Errorf("%d bytes: %d requests", size, n)
		}
	}
}

// Wrong bytes cost the chunks that are wrong.
func TestWrongBytesOverHTTPSCostOneChunk(t *testing.T) {
	blob := randomBlob(20 * wire.ChunkSize)
	s := &shelf{blob: blob, change: func(n int64, _ http.ResponseWriter, _ *http.Request, _ int, b []byte) []byte {
		if n == 1 {
			b = bytes.Clone(b)
			b[3*wire.ChunkSize+1] ^= 1
		}
		return b
	}}
	st, got, err := bring(t, Config{Far: []Reader{server(t, s)}, Pause: 20 * time.Millisecond}, blob, nil)
	if err != nil || !bytes.Equal(got, blob) {
		t.Fatal(err)
	}
	if st.Corrupt != 1 || st.Good != 20 || st.Bytes != 21*wire.ChunkSize {
		t.Errorf("%+v", st)
	}
}

// However a server misbehaves, another one brings the blob, and what the first
// brought is kept.
func TestABadServerAndAGoodOne(t *testing.T) {
	hang := func(r *http.Request) { <-r.Context().Done() }
	bad := map[string]func(n int64, w http.ResponseWriter, r *http.Request, from int, b []byte) []byte{
		"refuses": func(_ int64, w http.ResponseWriter, _ *http.Request, _ int, _ []byte) []byte {
			w.WriteHeader(429)
			return nil
		},
		"is broken": func(_ int64, w http.ResponseWriter, _ *http.Request, _ int, _ []byte) []byte {
			w.WriteHeader(500)
			return nil
		},
		"has nothing": func(_ int64, w http.ResponseWriter, _ *http.Request, _ int, _ []byte) []byte {
			w.WriteHeader(404)
			return nil
		},
		"knows no ranges": func(_ int64, w http.ResponseWriter, _ *http.Request, _ int, b []byte) []byte {
			w.Header().Del("Content-Range")
			return b
		},
		"has another blob": func(_ int64, w http.ResponseWriter, _ *http.Request, _ int, b []byte) []byte {
			w.Header().Set("Content-Range", "bytes 0-5/6")
			return b
		},
		"sends elsewhere": func(_ int64, w http.ResponseWriter, r *http.Request, _ int, _ []byte) []byte {
			http.Redirect(w, r, "https://127.0.0.1:1/", http.StatusFound)
			return nil
		},
		"hangs": func(_ int64, _ http.ResponseWriter, r *http.Request, _ int, _ []byte) []byte { hang(r); return nil },
		"hangs after two chunks": func(_ int64, w http.ResponseWriter, r *http.Request, _ int, b []byte) []byte {
			w.WriteHeader(206)
			_, _ = w.Write(b[:2*wire.ChunkSize])
			_ = http.NewResponseController(w).Flush()
			hang(r)
			return nil
		},
		"trickles": func(_ int64, w http.ResponseWriter, r *http.Request, _ int, b []byte) []byte {
			w.WriteHeader(206)
			for i := 0; r.Context().Err() == nil && i < len(b); i++ {
				_, _ = w.Write(b[i : i+1])
				_ = http.NewResponseController(w).Flush()
				time.Sleep(10 * time.Millisecond)
			}
			return nil
		},
		"hangs up": func(_ int64, w http.ResponseWriter, _ *http.Request, _ int, b []byte) []byte {
			w.WriteHeader(206)
			_, _ = w.Write(b[:wire.ChunkSize+5])
			panic(http.ErrAbortHandler)
		},
		"lies": func(_ int64, _ http.ResponseWriter, _ *http.Request, _ int, b []byte) []byte {
			return make([]byte, len(b))
		},
	}
	for name, change := range bad {
		t.Run(name, func(t *testing.T) {
			blob := randomBlob(20 * wire.ChunkSize)
			good := &shelf{blob: blob}
			st, got, err := bring(t, Config{
				Far:   []Reader{server(t, &shelf{blob: blob, change: change}), server(t, good)},
				Pause: 300 * time.Millisecond,
			}, blob, NewBudget(4*int64(len(blob)), 0))
			if err != nil || !bytes.Equal(got, blob) {
				t.Fatalf("%v, %+v", err, st)
			}
			if good.asked.Load() == 0 {
				t.Error("the good server was not needed: the bad one is not bad")
			}
		})
	}
}

func TestOnlyTheServerThatIsMeant(t *testing.T) {
	blob := randomBlob(10)
	s := server(t, &shelf{blob: blob})
	_, other := pair(t)
	wrong, err := NewHTTPS(s.base, &tls.Config{RootCAs: other})
	if err != nil {
		t.Fatal(err)
	}
	err = wrong.Read(t.Context(), wire.NewBlobRef(blob), []int{0}, func(int, []byte) { t.Error("bytes of a stranger") })
	var unknown *tls.CertificateVerificationError
	if !errors.As(err, &unknown) {
		t.Error(err)
	}
	for _, a := range []string{"", "http://127.0.0.1:1", "https://", "https://u:p@h:1", "https://h:1/x", "https://h:1?x", "https://h:1#x", "https://h:%", "h:1"} {
		if _, err := NewHTTPS(a, nil); err == nil {
			t.Errorf("%q is taken for an address", a)
		}
	}
}

func TestReadersEndWithTheirContext(t *testing.T) {
	blob := randomBlob(10)
	came := make(chan struct{})
	s := server(t, &shelf{blob: blob, change: func(_ int64, _ http.ResponseWriter, r *http.Request, _ int, _ []byte) []byte {
		close(came)
		<-r.Context().Done()
		return nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- New(Config{Far: []Reader{s}}).Fetch(ctx, wire.NewBlobRef(blob), &memPart{}, nil, nil) }()
	<-came
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := s.Read(t.Context(), wire.BlobRef{Digest: "../x", Size: 1}, []int{0}, nil); !errors.Is(err, ErrAbsent) {
		t.Errorf("no digest: %v", err)
	}
}
