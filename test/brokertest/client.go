package brokertest

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

const patience = 10 * time.Second

// Client speaks MQTT 3.1.1 packet by packet. It is for one goroutine.
type Client struct {
	conn *tls.Conn
	id   uint16
	got  []*packets.PublishPacket
}

// Will is a last will.
type Will struct {
	Topic  string
	Retain bool
}

// WillPayload is what a last will on a topic says.
func WillPayload(topic string) []byte { return []byte("will " + topic) }

// Dial connects with a certificate (nil: none) and a client id. It fails when
// TLS or the session is refused.
func Dial(addr string, f *Fleet, cert *tls.Certificate, clientID string, will *Will) (*Client, error) {
	cfg := &tls.Config{RootCAs: f.Authority.Pool(), ServerName: "localhost", MinVersion: tls.VersionTLS13}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert == nil {
			return &tls.Certificate{}, nil
		}
		return cert, nil
	}
	conn, err := tls.Dial("tcp", addr, cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{conn: conn}
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.CleanSession, p.ClientIdentifier, p.Keepalive = "MQTT", 4, true, clientID, 60
	if will != nil {
		p.WillFlag, p.WillTopic, p.WillRetain, p.WillQos, p.WillMessage = true, will.Topic, will.Retain, 1, WillPayload(will.Topic)
	}
	if err := c.send(p); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	r, err := c.next()
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	ack, ok := r.(*packets.ConnackPacket)
	if !ok || ack.ReturnCode != 0 {
		return nil, errors.Join(fmt.Errorf("refused: %v", r), conn.Close())
	}
	return c, nil
}

// Kill breaks the connection without farewell.
func (c *Client) Kill() { _ = c.conn.NetConn().Close() }

func (c *Client) send(p packets.ControlPacket) error {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	return p.Write(c.conn)
}

func (c *Client) next() (packets.ControlPacket, error) {
	if err := c.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return packets.ReadPacket(c.conn)
}

// until reads until want says so; messages are kept and acknowledged.
func (c *Client) until(want func(packets.ControlPacket) bool) error {
	for {
		p, err := c.next()
		if err != nil {
			return err
		}
		if m, ok := p.(*packets.PublishPacket); ok {
			c.got = append(c.got, m)
			if m.Qos == 1 {
				a := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
				a.MessageID = m.MessageID
				if err := c.send(a); err != nil {
					return err
				}
			}
		}
		if want(p) {
			return nil
		}
	}
}

// Publish sends a message and, with QoS 1, waits for the acknowledgement.
func (c *Client) Publish(topic string, payload []byte, qos byte, retain bool) error {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.Retain = topic, payload, qos, retain
	if qos == 0 {
		return c.send(p)
	}
	c.id++
	p.MessageID = c.id
	if err := c.send(p); err != nil {
		return err
	}
	return c.until(func(a packets.ControlPacket) bool { _, ok := a.(*packets.PubackPacket); return ok })
}

// Subscribe subscribes and says whether the broker granted it.
func (c *Client) Subscribe(filter string) (bool, error) {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	c.id++
	p.MessageID, p.Topics, p.Qoss = c.id, []string{filter}, []byte{1}
	if err := c.send(p); err != nil {
		return false, err
	}
	granted := false
	err := c.until(func(a packets.ControlPacket) bool {
		s, ok := a.(*packets.SubackPacket)
		granted = ok && len(s.ReturnCodes) == 1 && s.ReturnCodes[0] <= 1
		return ok
	})
	return granted, err
}

// Ping waits for an answer.
func (c *Client) Ping() error {
	if err := c.send(packets.NewControlPacket(packets.Pingreq)); err != nil {
		return err
	}
	return c.until(func(a packets.ControlPacket) bool { _, ok := a.(*packets.PingrespPacket); return ok })
}

// Message is what Wait returns.
type Message struct {
	Topic   string
	Payload []byte
	Retain  bool
}

// Wait reads until a message with this payload is there, and returns all
// messages up to it, in order.
func (c *Client) Wait(payload []byte) ([]Message, error) {
	take := func() ([]Message, bool) {
		for i, m := range c.got {
			if bytes.Equal(m.Payload, payload) {
				var out []Message
				for _, m := range c.got[:i+1] {
					out = append(out, Message{m.TopicName, m.Payload, m.Retain})
				}
				c.got = c.got[i+1:]
				return out, true
			}
		}
		return nil, false
	}
	for {
		if out, ok := take(); ok {
			return out, nil
		}
		if err := c.until(func(p packets.ControlPacket) bool { _, ok := p.(*packets.PublishPacket); return ok }); err != nil {
			return nil, fmt.Errorf("waiting for %q: %w", payload, err)
		}
	}
}
