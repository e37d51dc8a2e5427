package main

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
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/broker"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/publish"
	"github.com/droverhq/drover/test/repo"
)

const fleetName = "fanout"

// stage is what all rounds share: a fleet, its broker, a signed release.
type stage struct {
	o         options
	dir       string
	authority *identity.Authority
	addr      string
	mosquitto *exec.Cmd
	output    *bytes.Buffer

	root        []byte
	publication *publish.Publication
	blobs       map[string][]byte
	model       wire.BlobRef
	certs       []tls.Certificate
	rounds      int
	log         *slog.Logger
}

func newStage(ctx context.Context, dir string, o options) (*stage, error) {
	s := &stage{o: o, dir: dir, blobs: map[string][]byte{}, log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	if os.Getenv("DROVER_TEST_LOG") != "" {
		s.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	var err error
	if s.authority, err = identity.Create(filepath.Join(dir, "ca"), fleetName, nil, identity.Options{}); err != nil {
		return nil, err
	}
	for i := range o.clients {
		c, err := s.certificate(device(i))
		if err != nil {
			return nil, err
		}
		s.certs = append(s.certs, c)
	}
	if err := s.release(ctx); err != nil {
		return nil, err
	}
	return s, s.startBroker()
}

func device(i int) string { return fmt.Sprintf("cam-%d", i) }

func (s *stage) certificate(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		return tls.Certificate{}, err
	}
	c, err := s.authority.IssueDevice(name, csr)
	return tls.Certificate{Certificate: c.Chain, PrivateKey: key}, err
}

// release signs one release and a plan that gives it to everybody.
func (s *stage) release(ctx context.Context) error {
	keys, err := publish.Generate()
	if err != nil {
		return err
	}
	now := time.Now()
	r := &repo.Memory{}
	if _, err := publish.Init(ctx, r, keys, publish.InitOptions{Fleet: fleetName, Now: now}); err != nil {
		return err
	}
	if s.root, err = r.Get(ctx, wire.RoleRoot, 1); err != nil {
		return err
	}
	model := make([]byte, s.o.size)
	src := mathrand.NewChaCha8([32]byte{1})
	_, _ = src.Read(model) // never fails
	m, err := wire.DecodeManifest(repo.Manifest("gate", 1))
	if err != nil {
		return err
	}
	s.model = s.blob(model)
	m.Variants[0].Model = s.model
	m.Variants[0].Golden = s.blob(wire.Encode(wire.Golden{V: wire.Version, Cases: []wire.GoldenCase{
		{Width: 8, Height: 8, Format: "gray8", Pixels: make([]byte, 64), Output: []byte{1, 254}},
	}}))
	raw := wire.Encode(m)
	s.blob(raw)
	path, err := publish.AddRelease(ctx, r, keys[wire.RoleModels], raw, now)
	if err != nil {
		return err
	}
	if err := publish.SetPlans(ctx, r, keys[wire.RoleRollouts], []wire.Plan{repo.Plan("gate-1", 1, path)}, now); err != nil {
		return err
	}
	s.publication, err = publish.Publish(ctx, r, keys["snapshot"], keys["timestamp"], now)
	return err
}

func (s *stage) blob(b []byte) wire.BlobRef {
	ref := wire.NewBlobRef(b)
	s.blobs[ref.Digest] = b
	return ref
}

func (s *stage) startBroker() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s.addr = l.Addr().String()
	if err := l.Close(); err != nil {
		return err
	}
	conf, err := broker.MosquittoConfig(s.dir, broker.MosquittoOptions{Fleet: fleetName, Address: s.addr, Files: broker.Files(s.authority.Files())})
	if err != nil {
		return err
	}
	if os.Getuid() == 0 { // else it would change its user and not reach the files
		b, err := os.ReadFile(conf)
		if err != nil {
			return err
		}
		if err := os.WriteFile(conf, append([]byte("user root\n"), b...), 0o600); err != nil {
			return err
		}
	}
	s.output = &bytes.Buffer{}
	s.mosquitto = exec.Command("mosquitto", "-c", conf)
	s.mosquitto.Stdout, s.mosquitto.Stderr = s.output, s.output
	if err := s.mosquitto.Start(); err != nil {
		return err
	}
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", s.addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(end) {
			s.close()
			return fmt.Errorf("mosquitto does not listen: %w\n%s", err, s.output)
		}
	}
}

func (s *stage) close() {
	if s.mosquitto != nil {
		_ = s.mosquitto.Process.Signal(os.Interrupt)
		_ = s.mosquitto.Wait() // its exit code says nothing here
	}
}

// losses drops a share of what passes, each time another.
type losses struct {
	share float64

	mu  sync.Mutex
	rnd *mathrand.Rand
}

func newLosses(share float64, seed uint64) *losses {
	return &losses{share: share, rnd: mathrand.New(mathrand.NewPCG(seed, 5))}
}

func (l *losses) lose() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rnd.Float64() < l.share
}

// counter counts what the hub publishes, and tells when a share of the model
// has been sent.
type counter struct {
	mu     sync.Mutex
	bytes  int64
	shares []share
}

type share struct {
	at   int64
	open chan struct{}
}

func (c *counter) add(topic string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bytes += int64(len(topic) + n)
	for len(c.shares) > 0 && c.bytes >= c.shares[0].at {
		close(c.shares[0].open)
		c.shares = c.shares[1:]
	}
}

// after is closed when that many bytes were published; calls come in growing
// order.
func (c *counter) after(n int64) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	open := make(chan struct{})
	c.shares = append(c.shares, share{n, open})
	return open
}

func (c *counter) total() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bytes
}

var errNoBlob = errors.New("no such blob")
