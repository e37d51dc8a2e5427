package broker_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/broker"
	"github.com/droverhq/drover/cloud/identity"
	"github.com/droverhq/drover/test/brokertest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topics = wire.Topics{Fleet: brokertest.FleetName}

const (
	self      = "cam-1"
	neighbour = "cam-2"
)

// scene is one row's fleet: a device that tries things, its neighbour, the hub
// that sees everything.
type scene struct {
	t      *testing.T
	fleet  *brokertest.Fleet
	addr   string
	cert   tls.Certificate // of self
	serial string
	hub    *brokertest.Client
	marks  int
}

func newScene(t *testing.T, f *brokertest.Fleet, addr string) *scene {
	s := &scene{t: t, fleet: f, addr: addr, cert: f.Device(t, self)}
	leaf, err := x509.ParseCertificate(s.cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	s.serial = identity.Serial(leaf)
	hub := f.Authority.HubCertificate()
	if s.hub, err = brokertest.Dial(addr, f, &hub, identity.HubName, nil); err != nil {
		t.Fatalf("hub: %v", err)
	}
	t.Cleanup(s.hub.Kill)
	if ok, err := s.hub.Subscribe(wire.Prefix + brokertest.FleetName + "/#"); !ok || err != nil {
		t.Fatalf("hub cannot subscribe: %v", err)
	}
	return s
}

func (s *scene) mark() []byte {
	s.marks++
	return fmt.Appendf(nil, "mark %d", s.marks)
}

func (s *scene) dial(id string, will *brokertest.Will) (*brokertest.Client, error) {
	c, err := brokertest.Dial(s.addr, s.fleet, &s.cert, id, will)
	if err == nil {
		s.t.Cleanup(c.Kill)
	}
	return c, err
}

func (s *scene) device() *brokertest.Client {
	s.t.Helper()
	c, err := s.dial(self, nil)
	if err != nil {
		s.t.Fatalf("device cannot connect: %v", err)
	}
	return c
}

// seen says whether the hub has seen payload by the time it sees what the
// device sends afterwards.
func (s *scene) seen(c *brokertest.Client, payload []byte) bool {
	s.t.Helper()
	m := s.mark()
	if err := c.Publish(topics.Device(self, wire.LeafEvent), m, 1, false); err != nil {
		if c, err = s.dial(self, nil); err != nil {
			s.t.Fatalf("device cannot return: %v", err)
		}
		if err := c.Publish(topics.Device(self, wire.LeafEvent), m, 1, false); err != nil {
			s.t.Fatal(err)
		}
	}
	all, err := s.hub.Wait(m)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, g := range all {
		if bytes.Equal(g.Payload, payload) && !g.Retain { // retained: by an earlier row
			return true
		}
	}
	return false
}

func (s *scene) write(topic string, retain bool) bool {
	s.t.Helper()
	c := s.device()
	p := []byte("try " + topic)
	if err := c.Publish(topic, p, 0, retain); err != nil {
		s.t.Fatal(err)
	}
	return s.seen(c, p)
}

// read subscribes to filter and has the hub publish on topic, and says whether
// the device was sent it.
func (s *scene) read(filter, topic string) bool {
	s.t.Helper()
	c := s.device()
	if _, err := c.Subscribe(filter); err != nil {
		return false // ended for asking
	}
	if ok, err := c.Subscribe(topics.Device(self, wire.LeafCommand)); !ok || err != nil {
		s.t.Fatalf("device cannot read its commands: %v", err)
	}
	p, m := []byte("secret "+topic), s.mark()
	for topic, p := range map[string][]byte{topic: p} {
		if err := s.hub.Publish(topic, p, 1, false); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := s.hub.Publish(topics.Device(self, wire.LeafCommand), m, 1, false); err != nil {
		s.t.Fatal(err)
	}
	all, err := c.Wait(m)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, g := range all {
		if bytes.Equal(g.Payload, p) {
			return true
		}
	}
	return false
}

// will says whether a will is published. One that is wanted is waited for: the
// embedded broker leaves it out when the device returns at once.
func (s *scene) will(topic string, retain, wanted bool) bool {
	s.t.Helper()
	c, err := s.dial(self, &brokertest.Will{Topic: topic, Retain: retain})
	if err != nil {
		return false
	}
	c.Kill()
	if wanted {
		_, err := s.hub.Wait(brokertest.WillPayload(topic))
		return err == nil
	}
	// The will is published, or not, at the latest when the device returns.
	return s.seen(s.device(), brokertest.WillPayload(topic))
}

// rows: what a device may do with topics. On mosquitto, "mosquitto" says what
// it cannot enforce, and such a row is expected to be allowed there.
var rows = []struct {
	name      string
	try       func(s *scene) bool
	allowed   bool
	mosquitto string
}{
	{name: "writes its event", allowed: true, try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafEvent), false) }},
	{name: "retains its state", allowed: true, try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafState), true) }},
	{name: "writes a sample", allowed: true, try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafSample)+"/17", false) }},
	{name: "reads trust", allowed: true, try: func(s *scene) bool { return s.read(topics.TrustAll(), topics.TrustCurrent()) }},
	{name: "reads a blob", allowed: true, try: func(s *scene) bool { return s.read(topics.BlobAll(digest), topics.BlobChunk(digest, 3)) }},
	{name: "reads its desired", allowed: true, try: func(s *scene) bool {
		return s.read(topics.Device(self, wire.LeafDesired), topics.Device(self, wire.LeafDesired))
	}},
	{name: "asks for a certificate", allowed: true, try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafRenew), false) }},
	{name: "reads its certificate", allowed: true, try: func(s *scene) bool {
		return s.read(topics.Device(self, wire.LeafCertificate), topics.Device(self, wire.LeafCertificate))
	}},
	{name: "reads its repairs", allowed: true, try: func(s *scene) bool {
		return s.read(topics.Device(self, wire.LeafBlob)+"/+", topics.Device(self, wire.LeafBlob)+"/5")
	}},
	{name: "leaves its will", allowed: true, try: func(s *scene) bool { return s.will(topics.Device(self, wire.LeafOnline), true, true) }},

	{name: "writes neighbour's state", try: func(s *scene) bool { return s.write(topics.Device(neighbour, wire.LeafState), false) }},
	{name: "retains neighbour's online", try: func(s *scene) bool { return s.write(topics.Device(neighbour, wire.LeafOnline), true) }},
	{name: "writes its own command", try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafCommand), false) }},
	{name: "writes its own certificate", try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafCertificate), false) }},
	{name: "asks for neighbour's certificate", try: func(s *scene) bool { return s.write(topics.Device(neighbour, wire.LeafRenew), false) }},
	{name: "reads neighbour's certificate", try: func(s *scene) bool {
		return s.read(topics.Device(neighbour, wire.LeafCertificate), topics.Device(neighbour, wire.LeafCertificate))
	}},
	{name: "writes its own desired", try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafDesired), true) }},
	{name: "writes its own repairs", try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafBlob)+"/0", false) }},
	{name: "retains trust/current", try: func(s *scene) bool { return s.write(topics.TrustCurrent(), true) }},
	{name: "retains a trust role", try: func(s *scene) bool { return s.write(topics.TrustRole(wire.RoleRoot, 2), true) }},
	{name: "writes a blob", try: func(s *scene) bool { return s.write(topics.BlobChunk(digest, 0), false) }},
	{name: "writes an unknown leaf", try: func(s *scene) bool { return s.write(topics.Device(self, "other"), false) }},
	{name: "writes below its sample", try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafSample)+"/1/2", false) }},
	{name: "writes in a wrong shard", try: func(s *scene) bool { return s.write(wrongShard(), false) },
		mosquitto: "a pattern cannot compute the shard; hubs refuse such topics"},
	{name: "retains its event", try: func(s *scene) bool { return s.write(topics.Device(self, wire.LeafEvent), true) },
		mosquitto: "the ACL does not know of retained"},

	{name: "reads neighbour's command", try: func(s *scene) bool {
		return s.read(topics.Device(neighbour, wire.LeafCommand), topics.Device(neighbour, wire.LeafCommand))
	}},
	{name: "reads neighbour's state", try: func(s *scene) bool {
		return s.read(topics.Device(neighbour, wire.LeafState), topics.Device(neighbour, wire.LeafState))
	}},
	{name: "reads #", try: func(s *scene) bool { return s.read("#", topics.Device(neighbour, wire.LeafCommand)) }},
	{name: "reads the fleet", try: func(s *scene) bool {
		return s.read(wire.Prefix+brokertest.FleetName+"/#", topics.Device(neighbour, wire.LeafState))
	}},
	{name: "reads all devices", try: func(s *scene) bool {
		return s.read(topics.Devices(wire.LeafCommand), topics.Device(neighbour, wire.LeafCommand))
	}},
	{name: "reads +/+ in place of its name", try: func(s *scene) bool {
		return s.read("drover/+/+/d/+/+/desired", topics.Device(neighbour, wire.LeafDesired))
	}},
	{name: "shares a subscription", try: func(s *scene) bool {
		return s.read("$share/g/"+wire.Prefix+brokertest.FleetName+"/#", topics.Device(neighbour, wire.LeafState))
	}},

	{name: "wills neighbour's online", try: func(s *scene) bool { return s.will(topics.Device(neighbour, wire.LeafOnline), true, false) }},
	{name: "wills trust/current", try: func(s *scene) bool { return s.will(topics.TrustCurrent(), true, false) }},
	{name: "wills its command", try: func(s *scene) bool { return s.will(topics.Device(self, wire.LeafCommand), false, false) }},
	{name: "wills its event", try: func(s *scene) bool { return s.will(topics.Device(self, wire.LeafEvent), false, false) },
		mosquitto: "a will is held to what the device may write, no closer"},

	{name: "writes a packet over the limit", try: func(s *scene) bool {
		c := s.device()
		p := bytes.Repeat([]byte("x"), wire.MaxMessage+4096)
		_ = c.Publish(topics.Device(self, wire.LeafEvent), p, 0, false) // may break off
		return s.seen(c, p)
	}},
	{name: "takes over neighbour's session", try: takeOver},
	{name: "connects without certificate", try: func(s *scene) bool { return connects(s, nil) }},
	{name: "connects with another CA's certificate", try: func(s *scene) bool {
		c := brokertest.SelfSigned(s.t, self)
		return connects(s, &c)
	}},
	{name: "connects with another fleet's certificate", try: func(s *scene) bool {
		c := brokertest.NewFleet(s.t).Device(s.t, self)
		return connects(s, &c)
	}},
}

const digest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

func wrongShard() string {
	for _, d := range "0123456789abcdef" {
		if string(d) != wire.Shard(self) {
			return wire.Prefix + brokertest.FleetName + "/d/" + string(d) + "/" + self + "/event"
		}
	}
	panic("internal error: no other shard")
}

// takeOver is allowed when the neighbour's session does not live through it.
func takeOver(s *scene) bool {
	cert := s.fleet.Device(s.t, neighbour)
	n, err := brokertest.Dial(s.addr, s.fleet, &cert, neighbour, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	defer n.Kill()
	if c, err := s.dial(neighbour, nil); err == nil {
		// mosquitto puts the certificate's name in place of the client id.
		if s.write(topics.Device(neighbour, wire.LeafState), false) {
			return true
		}
		c.Kill()
	}
	return n.Ping() != nil
}

func connects(s *scene, cert *tls.Certificate) bool {
	c, err := brokertest.Dial(s.addr, s.fleet, cert, self, nil)
	if err != nil {
		return false
	}
	c.Kill()
	return true
}

func TestTopicPermissions(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		for _, r := range rows {
			t.Run(strings.ReplaceAll(r.name, " ", "-"), func(t *testing.T) {
				want := r.allowed
				if srv.Kind() == "mosquitto" && r.mosquitto != "" {
					want = true
					t.Logf("mosquitto cannot enforce this: %s", r.mosquitto)
				}
				if got := r.try(newScene(t, f, srv.Addr())); got != want {
					t.Errorf("%s: allowed %v, want %v", r.name, got, want)
				}
			})
		}
	})
}

func TestOneNameForTheHub(t *testing.T) {
	if broker.HubName != identity.HubName {
		t.Errorf("the broker takes %q for the hub, certificates name %q", broker.HubName, identity.HubName)
	}
}

func TestSysTopics(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		s := newScene(t, f, srv.Addr())
		c := s.device()
		if _, err := c.Subscribe("$SYS/#"); err != nil {
			return // ended for asking
		}
		if ok, err := c.Subscribe(topics.Device(self, wire.LeafCommand)); !ok || err != nil {
			t.Fatal(ok, err)
		}
		m := s.mark()
		if err := s.hub.Publish(topics.Device(self, wire.LeafCommand), m, 1, false); err != nil {
			t.Fatal(err)
		}
		all, err := c.Wait(m)
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 {
			t.Errorf("device was sent %d messages of $SYS, first %s", len(all)-1, all[0].Topic)
		}
	})
}

func TestRevoked(t *testing.T) {
	brokertest.Each(t, func(t *testing.T, f *brokertest.Fleet, srv brokertest.Server) {
		srv.Start(t)
		s := newScene(t, f, srv.Addr())
		c := s.device()
		if err := f.Authority.Revoke(s.serial); err != nil {
			t.Fatal(err)
		}
		srv.Reload(t)
		// mosquitto cannot enforce this: it reads the list anew, but open
		// sessions go on.
		if srv.Kind() == "embedded" && c.Ping() == nil {
			t.Error("the session outlives the revocation")
		}
		for end := time.Now().Add(patience); connects(s, &s.cert); {
			if time.Now().After(end) {
				t.Fatal("a revoked certificate connects")
			}
		}
		other := f.Device(t, neighbour)
		n, err := brokertest.Dial(srv.Addr(), f, &other, neighbour, nil)
		if err != nil {
			t.Fatalf("a good certificate no longer connects: %v", err)
		}
		n.Kill()
	})
}
