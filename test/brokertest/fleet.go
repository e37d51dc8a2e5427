// Package brokertest starts real brokers, the embedded one and mosquitto, with
// real certificates, and speaks plain MQTT to them. It is for tests only.
package brokertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/droverhq/drover/cloud/broker"
	"github.com/droverhq/drover/cloud/identity"
)

// FleetName is the fleet of all tests.
const FleetName = "test-fleet"

// Fleet is a fleet with its authority in a temporary folder.
type Fleet struct {
	Authority *identity.Authority
	Dir       string
}

// NewFleet creates a fleet.
func NewFleet(t testing.TB) *Fleet {
	t.Helper()
	dir := t.TempDir()
	a, err := identity.Create(dir, FleetName, nil, identity.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return &Fleet{Authority: a, Dir: dir}
}

// Device makes a certificate of the fleet for a device.
func (f *Fleet) Device(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: name}}, key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := f.Authority.IssueDevice(name, csr)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: c.Chain, PrivateKey: key}
}

// SelfSigned makes a certificate that leads nowhere.
func SelfSigned(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Server is a broker that can be stopped and started again on the same port.
type Server interface {
	Kind() string
	Addr() string
	Start(t testing.TB)
	Stop(t testing.TB)
	// Reload has the broker notice what was revoked; that may take a moment.
	Reload(t testing.TB)
}

// Kinds are the brokers there are.
var kinds = []struct {
	name string
	make func(testing.TB, *Fleet, string) Server
}{{"embedded", Embedded}, {"mosquitto", Mosquitto}}

// Each runs a test against every broker, not yet started.
func Each(t *testing.T, run func(t *testing.T, f *Fleet, s Server)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			f := NewFleet(t)
			run(t, f, k.make(t, f, FreeAddr(t)))
		})
	}
}

// FreeAddr is an address on this machine that nobody listens on.
func FreeAddr(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// EmbeddedServer is the embedded broker.
type EmbeddedServer struct {
	fleet  *Fleet
	addr   string
	Broker *broker.Broker // while it runs
	stop   context.CancelFunc
	ended  chan error
}

// Embedded makes an embedded broker.
func Embedded(_ testing.TB, f *Fleet, addr string) Server {
	return &EmbeddedServer{fleet: f, addr: addr}
}

// Kind implements Server.
func (e *EmbeddedServer) Kind() string { return "embedded" }

// Addr implements Server.
func (e *EmbeddedServer) Addr() string { return e.addr }

// Start implements Server.
func (e *EmbeddedServer) Start(t testing.TB) {
	t.Helper()
	b, err := broker.New(broker.Config{
		Fleet: FleetName, Address: e.addr, TLS: e.fleet.Authority.TLSConfig(), Revoked: e.fleet.Authority.Revoked,
		Log: Logger(t),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.Broker, e.stop, e.ended = b, cancel, make(chan error, 1)
	go func() { e.ended <- b.Run(ctx) }()
	t.Cleanup(func() { e.Stop(t) })
}

// Stop implements Server.
func (e *EmbeddedServer) Stop(t testing.TB) {
	t.Helper()
	if e.stop == nil {
		return
	}
	e.stop()
	e.stop = nil
	select {
	case err := <-e.ended:
		if err != nil {
			t.Errorf("broker: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Error("broker does not stop")
	}
}

// Reload implements Server.
func (e *EmbeddedServer) Reload(testing.TB) { e.Broker.CheckRevoked() }

type mosquitto struct {
	fleet *Fleet
	addr  string
	conf  string
	cmd   *exec.Cmd
	out   *logWriter
}

// Mosquitto makes a mosquitto with the generated configuration. The test is
// skipped when it is not installed.
func Mosquitto(t testing.TB, f *Fleet, addr string) Server {
	t.Helper()
	if _, err := exec.LookPath("mosquitto"); err != nil {
		t.Skip("mosquitto is not installed")
	}
	dir := t.TempDir()
	conf, err := broker.MosquittoConfig(dir, broker.MosquittoOptions{Fleet: FleetName, Address: addr, Files: broker.Files(f.Authority.Files())})
	if err != nil {
		t.Fatal(err)
	}
	if os.Getuid() == 0 { // else it would change its user and not reach the files
		b, err := os.ReadFile(conf)
		if err != nil {
			t.Fatal(err)
		}
		conf = filepath.Join(dir, "root.conf")
		if err := os.WriteFile(conf, append([]byte("user root\n"), b...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &mosquitto{fleet: f, addr: addr, conf: conf}
}

func (m *mosquitto) Kind() string { return "mosquitto" }
func (m *mosquitto) Addr() string { return m.addr }

func (m *mosquitto) Start(t testing.TB) {
	t.Helper()
	m.out = &logWriter{}
	m.cmd = exec.Command("mosquitto", "-c", m.conf)
	m.cmd.Stdout, m.cmd.Stderr = m.out, m.out
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		m.Stop(t)
		if t.Failed() {
			t.Logf("mosquitto said:\n%s", m.out.String())
		}
	})
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", m.addr)
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("mosquitto does not listen: %v", err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m *mosquitto) Stop(t testing.TB) {
	t.Helper()
	if m.cmd == nil {
		return
	}
	if err := m.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Errorf("mosquitto: %v", err)
	}
	_ = m.cmd.Wait() // its exit code says nothing here
	m.cmd = nil
}

func (m *mosquitto) Reload(t testing.TB) {
	t.Helper()
	if err := m.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Errorf("mosquitto: %v", err)
	}
}

type logWriter struct {
	mu sync.Mutex
	b  []byte
}

func (w *logWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.b = append(w.b, p...)
	return len(p), nil
}

func (w *logWriter) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return string(w.b)
}

// Logger logs nothing, or to standard error with DROVER_TEST_LOG=1.
func Logger(testing.TB) *slog.Logger {
	if os.Getenv("DROVER_TEST_LOG") != "" {
		return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	return slog.New(slog.NewTextHandler(io.Discard, nil))
}
