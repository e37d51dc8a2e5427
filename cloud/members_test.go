package cloud_test

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/droverhq/drover/agent/enroll"
	"github.com/droverhq/drover/agent/link"
	"github.com/droverhq/drover/agent/renew"
	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/cloud/registry"
	"github.com/droverhq/drover/test/brokertest"
)

const patience = 30 * time.Second

// yard is a fleet with a hub and a real broker: the hub's own, or mosquitto.
type yard struct {
	t     *testing.T
	fleet *cloud.Fleet
	srv   brokertest.Server // nil: the hub's own
	stop  func()
}

func eachBroker(t *testing.T, run func(t *testing.T, y *yard)) {
	for _, kind := range []string{"embedded", "mosquitto"} {
		t.Run(kind, func(t *testing.T) {
			s := cloud.Settings{Fleet: brokertest.FleetName}
			for _, e := range []*cloud.Endpoint{&s.Broker, &s.Enroll} {
				e.Listen = brokertest.FreeAddr(t)
				e.Public = e.Listen
			}
			if kind == "mosquitto" {
				s.External = s.Broker.Public
			}
			f, err := cloud.Init(t.Context(), filepath.Join(t.TempDir(), "fleet"), cloud.InitOptions{Settings: s, Insecure: true})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = f.Close() })
			y := &yard{t: t, fleet: f}
			if kind == "mosquitto" {
				y.srv = brokertest.Mosquitto(t, &brokertest.Fleet{Authority: f.Authority}, s.External)
				y.srv.Start(t)
			}
			y.serve()
			run(t, y)
		})
	}
}

// serve runs the hub until the test ends.
func (y *yard) serve() {
	y.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	h, err := cloud.NewHub(ctx, y.fleet, cloud.HubOptions{Logger: brokertest.Logger(y.t)})
	if err != nil {
		cancel()
		y.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx) }()
	var once sync.Once
	y.stop = func() {
		once.Do(func() {
			cancel()
			if err := <-done; err != nil {
				y.t.Error(err)
			}
		})
	}
	y.t.Cleanup(func() { y.stop() })
}

// reload has an external broker read certificates and revocations anew.
func (y *yard) reload() {
	if y.srv != nil {
		y.srv.Reload(y.t)
	}
}

// cam is a device with the real session and the real renewal, and no clock.
type cam struct {
	t    *testing.T
	name string
	dir  string
	key  crypto.Signer
	link *link.Link
	stop func()

	mu    sync.Mutex
	state link.State
}

// enrol makes a member by a token, over HTTPS, as droverd does.
func (y *yard) enrol(name string, token wire.Token) (*cam, error) {
	y.t.Helper()
	c := &cam{t: y.t, name: name, dir: filepath.Join(y.t.TempDir(), "identity")}
	var err error
	if c.key, err = enroll.SoftwareKey(c.dir); err != nil {
		y.t.Fatal(err)
	}
	_, err = enroll.Enroll(y.t.Context(), c.dir, token.String(), name, c.key)
	return c, err
}

func (y *yard) member(name string) *cam {
	y.t.Helper()
	token, err := y.fleet.Token(y.t.Context(), time.Hour, false)
	if err != nil {
		y.t.Fatal(err)
	}
	c, err := y.enrol(name, token)
	if err != nil {
		y.t.Fatal(err)
	}
	return c
}

func (c *cam) identity() enroll.Identity {
	c.t.Helper()
	id, err := enroll.Load(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

// run connects until the test ends. now is what the device takes for the time.
func (c *cam) run(now func() time.Time) {
	c.t.Helper()
	id := c.identity()
	cert, err := id.Certificate(c.key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.link, err = link.New(link.Config{
		Broker: id.Broker, Fleet: id.Fleet, Device: id.Device, Certificate: cert, CA: id.CA, Boot: "boot", Log: brokertest.Logger(c.t),
		MinBackoff: 50 * time.Millisecond, MaxBackoff: 200 * time.Millisecond,
		OnState: func(s link.State) {
			c.mu.Lock()
			c.state = s
			c.mu.Unlock()
		},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	seq := uint64(0)
	r := renew.New(renew.Config{
		Dir: c.dir, Identity: id, Key: c.key, Session: session{c.link}, Now: now, Renewed: c.link.SetCertificate, Log: brokertest.Logger(c.t),
		Header:   func() wire.Header { seq++; return wire.Header{V: wire.Version, Boot: "boot", Seq: seq} },
		AskEvery: time.Second, Look: 50 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { _ = c.link.Run(ctx) })
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			c.t.Error(err)
		}
	})
	c.stop = func() { cancel(); wg.Wait() }
	c.t.Cleanup(func() { c.stop() })
}

type session struct{ *link.Link }

func (s session) Subscribe(ctx context.Context, filter string, qos byte, handle func(string, []byte)) error {
	return s.Link.Subscribe(ctx, filter, qos, handle)
}

func (c *cam) now() link.State {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func (c *cam) connected() bool { return c.now().Connected }

func (c *cam) issuer() string {
	c.t.Helper()
	ca, err := x509.ParseCertificate(c.identity().Chain[1])
	if err != nil {
		c.t.Fatal(err)
	}
	return identity.Serial(ca)
}

func (c *cam) serial() string {
	c.t.Helper()
	leaf, err := x509.ParseCertificate(c.identity().Chain[0])
	if err != nil {
		c.t.Fatal(err)
	}
	return identity.Serial(leaf)
}

// admitted says whether the broker takes a certificate.
func (y *yard) admitted(c *cam, id enroll.Identity) bool {
	y.t.Helper()
	cert, err := id.Certificate(c.key)
	if err != nil {
		y.t.Fatal(err)
	}
	conn, err := brokertest.Dial(y.fleet.Settings.Broker.Public, &brokertest.Fleet{Authority: y.fleet.Authority}, &cert, c.name, nil)
	if err != nil {
		return false
	}
	conn.Kill()
	return true
}

func unknown() time.Time { return time.Time{} }

// The device knows no time at all; the hub tells it that its certificate is
// due, two thirds of whose life are over.
func TestCertificateIsRenewedOverMQTT(t *testing.T) {
	eachBroker(t, func(t *testing.T, y *yard) {
		c := y.member("cam-1")
		// As if it had been enrolled long ago: a certificate of short life, which
		// is backdated by an hour, so that most of it is over.
		short, err := identity.Open(filepath.Join(y.fleet.Dir, "ca"), identity.Options{DeviceValidity: 20 * time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		id := c.identity()
		csr, err := id.CertificateRequest(c.key)
		if err != nil {
			t.Fatal(err)
		}
		issued, err := short.IssueDevice("cam-1", csr)
		if err != nil {
			t.Fatal(err)
		}
		id.Chain = issued.Chain
		if err := id.Save(c.dir); err != nil {
			t.Fatal(err)
		}
		c.run(unknown)
		eventually(t, "a renewed certificate is stored", func() bool { return time.Until(c.identity().NotAfter()) > 80*24*time.Hour })
		eventually(t, "a session with it", func() bool {
			shown, err := x509.ParseCertificate(c.link.Certificate().Certificate[0])
			return err == nil && identity.Serial(shown) == c.serial() && c.connected() && c.link.Stats().Sessions >= 2
		})
		d, err := y.fleet.Registry.Device(t.Context(), "cam-1")
		if err != nil || d.Cert.Serial != c.serial() {
			t.Errorf("the registry knows serial %s, %v", d.Cert.Serial, err)
		}
		if !y.admitted(c, id) {
			t.Error("the former certificate was revoked")
		}
	})
}

// Requests that a hostile broker makes up in a device's name give it nothing.
func TestHostileBrokerGetsNoCertificate(t *testing.T) {
	eachBroker(t, func(t *testing.T, y *yard) {
		c := y.member("cam-1")
		before := c.serial()
		evil, err := enroll.SoftwareKey(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		csr, err := c.identity().CertificateRequest(evil)
		if err != nil {
			t.Fatal(err)
		}
		c.run(unknown)
		eventually(t, "a session", c.connected)
		answers := make(chan *wire.Certificate, 8)
		topics := wire.Topics{Fleet: brokertest.FleetName}
		// In place of the renewer's: the last subscription counts.
		err = c.link.Subscribe(t.Context(), topics.Device("cam-1", wire.LeafCertificate), 1, func(_ string, b []byte) {
			if m, err := wire.DecodeCertificate(b); err == nil {
				answers <- m
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		ask := func() {
			if err := c.link.Publish(t.Context(), topics.Device("cam-1", wire.LeafRenew), wire.Encode(wire.Renew{Header: wire.Header{V: 1, Boot: "b", Seq: 1}, CSR: csr}), 1, false); err != nil {
				t.Fatal(err)
			}
		}
		ask()
		select {
		case m := <-answers:
			if len(m.Chain) != 0 || m.Error == "" || m.At == 0 {
				t.Errorf("answered %+v", m)
			}
		case <-time.After(patience):
			t.Fatal("no answer")
		}
		for range 20 { // and not at any pace
			ask()
		}
		// The hub takes messages in order: what it has answered by now is all.
		state := wire.State{Header: wire.Header{V: 1, Boot: "b", Seq: 2}}
		if err := c.link.Publish(t.Context(), topics.Device("cam-1", wire.LeafState), wire.Encode(state), 1, true); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the hub has taken all", func() bool {
			d, err := y.fleet.Registry.Device(t.Context(), "cam-1")
			return err == nil && len(d.State) > 0
		})
		if n := len(answers); n > 3 {
			t.Errorf("%d more answers at once", n)
		}
		d, err := y.fleet.Registry.Device(t.Context(), "cam-1")
		if err != nil || d.Cert.Serial != before {
			t.Errorf("serial %s, was %s, %v", d.Cert.Serial, before, err)
		}
	})
}

// The hub CA is replaced by another process while the fleet runs.
func TestFleetSurvivesANewHubCA(t *testing.T) {
	eachBroker(t, func(t *testing.T, y *yard) {
		var cams []*cam
		for _, name := range []string{"cam-1", "cam-2", "cam-3"} {
			c := y.member(name)
			c.run(unknown)
			cams = append(cams, c)
		}
		asleep := y.member("cam-4")
		was := asleep.identity()
		for _, c := range cams {
			eventually(t, c.name+" is connected", c.connected)
		}
		other, err := cloud.Open(t.Context(), y.fleet.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close()
		key, err := other.RootKey("")
		if err != nil {
			t.Fatal(err)
		}
		grace := time.Duration(0)
		if y.srv != nil {
			grace = time.Hour
		}
		rot, err := other.Authority.RotateHubCA(key, grace)
		if err != nil {
			t.Fatal(err)
		}
		y.reload()
		for _, c := range cams {
			eventually(t, c.name+" has a chain of the new hub CA", func() bool { return c.issuer() == rot.Serial })
			eventually(t, c.name+" has a session with it", func() bool { return c.connected() && c.link.Stats().Sessions >= 2 })
		}
		asleep.run(unknown)
		eventually(t, "one that slept follows", func() bool { return asleep.issuer() == rot.Serial && asleep.connected() })
		if y.srv != nil {
			return
		}
		if !y.fleet.Authority.Revoked(rot.Former) {
			t.Error("the former hub CA is not revoked")
		}
		if !y.admitted(asleep, was) {
			t.Error("a member's former chain is refused although the key is its own")
		}
	})
}

func TestRevokedDeviceIsOut(t *testing.T) {
	eachBroker(t, func(t *testing.T, y *yard) {
		c := y.member("cam-1")
		c.run(unknown)
		eventually(t, "a session", c.connected)
		if err := y.fleet.Revoke(t.Context(), "cam-1"); err != nil {
			t.Fatal(err)
		}
		if y.srv != nil { // mosquitto: new sessions after SIGHUP, open ones at a restart
			y.srv.Stop(t)
			y.srv.Start(t)
		}
		eventually(t, "the broker refuses the certificate", func() bool { return errors.Is(c.now().Err, link.ErrCertificateRefused) })
	})
}

func TestReplacedDevice(t *testing.T) {
	eachBroker(t, func(t *testing.T, y *yard) {
		old := y.member("cam-1")
		was := old.identity()
		token, err := y.fleet.ReplaceToken(t.Context(), "cam-1", time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		refused := (*enroll.RefusedError)(nil)
		if _, err := y.enrol("cam-2", token); !errors.As(err, &refused) {
			t.Errorf("with another name: %v", err)
		}
		if !y.admitted(old, was) {
			t.Error("the old machine is out before the token was used")
		}
		next, err := y.enrol("cam-1", token)
		if err != nil {
			t.Fatal(err)
		}
		y.reload()
		eventually(t, "the old machine is out", func() bool { return !y.admitted(old, was) })
		next.run(unknown)
		eventually(t, "the new machine is in", next.connected)
		if _, err := y.enrol("cam-1", token); !errors.As(err, &refused) {
			t.Errorf("the token twice: %v", err)
		}
		if _, err := y.fleet.ReplaceToken(t.Context(), "cam-9", time.Hour); !errors.Is(err, registry.ErrNotFound) {
			t.Errorf("of a device that is none: %v", err)
		}
	})
}

// The hub's certificate is renewed under a running hub, and devices that call
// an address see the new one.
func TestRunningHubShowsItsNewCertificate(t *testing.T) {
	eachBroker(t, func(t *testing.T, y *yard) {
		show := func() string {
			d := &tls.Dialer{NetDialer: &net.Dialer{Timeout: patience}, Config: &tls.Config{InsecureSkipVerify: true}}
			c, err := d.DialContext(t.Context(), "tcp", y.fleet.Settings.Enroll.Public)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			return identity.Serial(c.(*tls.Conn).ConnectionState().PeerCertificates[0])
		}
		before := show()
		_, err := identity.Open(filepath.Join(y.fleet.Dir, "ca"), identity.Options{Now: func() time.Time { return time.Now().AddDate(0, 0, 310) }})
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "another certificate", func() bool { return show() != before })
	})
}
