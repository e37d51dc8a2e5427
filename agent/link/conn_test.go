package link

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
)

func encode(t testing.TB, p packets.ControlPacket) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := p.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func publish(t testing.TB, qos byte, n int) []byte {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Qos, p.Payload = "drover/v1/f/trust/current", qos, make([]byte, n)
	return encode(t, p)
}

func suback(t testing.TB, codes ...byte) []byte {
	p := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
	p.ReturnCodes = codes
	return encode(t, p)
}

func TestHostileBroker(t *testing.T) {
	for name, c := range map[string]struct {
		b  []byte
		ok bool
	}{
		"message":            {publish(t, 1, 10), true},
		"largest message":    {publish(t, 0, wire.MaxMessage), true},
		"SUBACK":             {suback(t, 1), true},
		"PINGRESP":           {encode(t, packets.NewControlPacket(packets.Pingresp)), true},
		"over the limit":     {publish(t, 0, maxPacket)[:5], false},
		"256 MiB announced":  {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, false},
		"length of 5 bytes":  {[]byte{0x30, 0xff, 0xff, 0xff, 0xff, 0x01}, false},
		"QoS 2":              {publish(t, 2, 10), false},
		"SUBACK of two":      {suback(t, 1, 1), false},
		"SUBACK of none":     {suback(t), false},
		"PUBREC":             {encode(t, packets.NewControlPacket(packets.Pubrec)), false},
		"CONNECT":            {[]byte{0x10, 0x00}, false},
		"type 0":             {[]byte{0x00, 0x00}, false},
		"PUBACK of no bytes": {[]byte{0x40, 0x00}, false},
	} {
		// In one piece, and byte by byte, behind a sound packet.
		first := suback(t, 0)
		for _, step := range []int{1 << 20, 1} {
			var k checker
			var err error
			for b := append(bytes.Clone(first), c.b...); len(b) > 0 && err == nil; {
				n := min(step, len(b))
				err = k.see(b[:n])
				b = b[n:]
			}
			if (err == nil) != c.ok || (err != nil && !errors.Is(err, ErrProtocol)) {
				t.Errorf("%s in steps of %d: %v", name, step, err)
			}
		}
	}
}

// Whatever passes the guard, the MQTT client can read without harm.
func FuzzGuard(f *testing.F) {
	f.Add(publish(f, 1, 3))
	f.Add(append(suback(f, 1), publish(f, 0, 1)...))
	f.Add([]byte{0x20, 2, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var whole, bytewise checker
		err := whole.see(b)
		var err2 error
		for i := range b {
			if err2 = bytewise.see(b[i : i+1]); err2 != nil {
				break
			}
		}
		if (err == nil) != (err2 == nil) {
			t.Fatalf("in one piece %v, byte by byte %v", err, err2)
		}
		if err != nil {
			return
		}
		r := bytes.NewReader(b)
		for {
			p, err := packets.ReadPacket(r)
			if err != nil {
				return
			}
			if s, ok := p.(*packets.SubackPacket); ok && len(s.ReturnCodes) != 1 {
				t.Fatalf("SUBACK of %d", len(s.ReturnCodes))
			}
		}
	})
}

func TestMatches(t *testing.T) {
	for _, c := range []struct {
		filter, topic string
		want          bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a", false}, {"a", "a/b", false}, {"a/#", "a", true}, {"a/#", "a/b/c", true}, {"#", "a/b", true},
		{"a/+", "a/b", true}, {"a/+", "a", false}, {"a/+", "a/b/c", false}, {"+/b", "a/b", true}, {"a/+/c", "a/b/c", true}, {"a/b", "a/c", false},
		{"a/+", "a/", true}, {"a/+/#", "a/b", true},
	} {
		if got := matches(c.filter, c.topic); got != c.want {
			t.Errorf("matches(%q, %q) = %v", c.filter, c.topic, got)
		}
	}
}

// The device has no clock to judge dates by: a certificate of 2001 and one of
// 2090 are as good as one of today, if the chain and the name are right.
func TestBrokerDatesDoNotMatter(t *testing.T) {
	for _, year := range []int{2001, 2026, 2090} {
		at := time.Date(year, 1, 1, 0, 0, 0, 0, time.UTC)
		a, err := identity.Create(t.TempDir(), "yard", nil, identity.Options{Now: func() time.Time { return at }})
		if err != nil {
			t.Fatal(err)
		}
		var chain []*x509.Certificate
		for _, der := range a.HTTPSConfig().Certificates[0].Certificate {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, c)
		}
		if err := verifyBroker(chain, a.Pool(), "localhost"); err != nil {
			t.Errorf("%d: %v", year, err)
		}
		if err := verifyBroker(chain, a.Pool(), "other.example"); !errors.Is(err, ErrBrokerIdentity) {
			t.Errorf("%d, other name: %v", year, err)
		}
		if err := verifyBroker(chain[:1], a.Pool(), "localhost"); !errors.Is(err, ErrBrokerIdentity) {
			t.Errorf("%d, no intermediate: %v", year, err)
		}
		client, err := x509.ParseCertificate(a.HubCertificate().Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := verifyBroker([]*x509.Certificate{client, chain[1]}, a.Pool(), "localhost"); !errors.Is(err, ErrBrokerIdentity) {
			t.Errorf("%d, client certificate as broker: %v", year, err)
		}
		if err := verifyBroker(nil, a.Pool(), "localhost"); !errors.Is(err, ErrBrokerIdentity) {
			t.Errorf("%d, no certificate: %v", year, err)
		}
	}
}

func TestQueueBounds(t *testing.T) {
	q := newQueue(3, 100)
	s := &subscription{}
	it := func(n int) item { return item{sub: s, payload: []byte(strings.Repeat("x", n))} }
	if !q.put(it(60)) || q.put(it(41)) || !q.put(it(40)) {
		t.Error("bytes are not bounded")
	}
	if _, ok := q.take(); !ok || !q.put(it(1)) || !q.put(it(1)) || q.put(it(1)) {
		t.Error("items are not bounded")
	}
}
