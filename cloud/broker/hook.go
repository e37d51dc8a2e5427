package broker

import (
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/droverhq/drover/agent/wire"
)

// hook is all that the server asks us.
type hook struct {
	mqtt.HookBase
	log     *slog.Logger
	stats   *counters
	session func(id string) *mqtt.Client // nil when there is none
}

// ID implements mqtt.Hook.
func (h *hook) ID() string { return "drover" }

// Provides implements mqtt.Hook.
func (h *hook) Provides(b byte) bool {
	switch b {
	case mqtt.OnConnectAuthenticate, mqtt.OnSessionEstablish, mqtt.OnACLCheck, mqtt.OnPublish, mqtt.OnPublishDropped:
		return true
	}
	return false
}

// who is the client behind a session; the zero Identity may do nothing.
func who(cl *mqtt.Client) Identity {
	if p, ok := cl.Net.Conn.(*peer); ok {
		return p.id
	}
	return Identity{}
}

// OnConnectAuthenticate implements mqtt.Hook.
func (h *hook) OnConnectAuthenticate(cl *mqtt.Client, pk packets.Packet) bool {
	if err := checkConnect(who(cl), pk); err != nil {
		h.stats.refused.Add(1)
		h.log.Warn("session refused", "client", who(cl).Name, "remote", cl.Net.Remote, "error", err)
		return false
	}
	return true
}

func checkConnect(id Identity, pk packets.Packet) error {
	switch {
	case !wire.ValidName(id.Name):
		return fmt.Errorf("%w: certificate names %q", ErrDenied, id.Name)
	case pk.Connect.ClientIdentifier != id.Name:
		return fmt.Errorf("%w: client id %q with the certificate of %q", ErrDenied, pk.Connect.ClientIdentifier, id.Name)
	case pk.ProtocolVersion != 4:
		return fmt.Errorf("%w: MQTT protocol level %d, this broker speaks 4 (3.1.1)", ErrDenied, pk.ProtocolVersion)
	case !pk.Connect.Clean:
		return fmt.Errorf("%w: only clean sessions", ErrDenied)
	case pk.Connect.Keepalive == 0 || pk.Connect.Keepalive > maxKeepalive:
		return fmt.Errorf("%w: keep-alive of %d s, allowed 1 to %d", ErrDenied, pk.Connect.Keepalive, maxKeepalive)
	case pk.Connect.WillFlag:
		return authorizeWill(id, pk.Connect.WillTopic, pk.Connect.WillRetain)
	}
	return nil
}

// OnSessionEstablish implements mqtt.Hook. When a client returns before its old
// connection was found dead, the server would publish the old will after the
// new session has said that it is online. The will of a session that was
// succeeded by the same client is no news.
func (h *hook) OnSessionEstablish(cl *mqtt.Client, _ packets.Packet) {
	if old := h.session(cl.ID); old != nil {
		atomic.StoreUint32(&old.Properties.Will.Flag, 0)
	}
}

// OnACLCheck implements mqtt.Hook.
func (h *hook) OnACLCheck(cl *mqtt.Client, topic string, write bool) bool {
	action := Read
	if write {
		action = Write
	}
	if err := Authorize(who(cl), action, topic); err != nil {
		h.stats.denied.Add(1)
		h.log.Warn("denied", "client", cl.ID, "action", string(action), "topic", topic)
		return false
	}
	return true
}

// OnPublish implements mqtt.Hook. The server publishes in spite of most errors
// that this may return, but not of ErrRejectPacket, which it in turn never
// acknowledges: so the session ends as well.
func (h *hook) OnPublish(cl *mqtt.Client, pk packets.Packet) (packets.Packet, error) {
	if cl.Net.Inline {
		return pk, nil
	}
	why := ""
	switch {
	case len(pk.Payload) > wire.MaxMessage:
		why = "payload too large"
	case pk.FixedHeader.Retain && !Retainable(who(cl), pk.TopicName):
		why = "retained where it may not be"
	case !pk.FixedHeader.Retain || len(pk.Payload) > 0:
		return pk, nil
	case !who(cl).Hub():
		why = "a device may not clear retained messages"
	default:
		return pk, nil
	}
	h.stats.denied.Add(1)
	h.log.Warn("denied", "client", cl.ID, "topic", pk.TopicName, "reason", why)
	_ = cl.Net.Conn.Close()
	return pk, packets.ErrRejectPacket
}

// isChunk says whether a topic carries a chunk of a blob.
func isChunk(topic string) bool { return strings.Contains(topic, "/blob/") }

// OnPublishDropped implements mqtt.Hook. The client's queue is full.
func (h *hook) OnPublishDropped(cl *mqtt.Client, pk packets.Packet) {
	h.stats.dropped.Add(1)
	p, ok := cl.Net.Conn.(*peer)
	if !ok || isChunk(pk.TopicName) {
		return
	}
	h.stats.slow.Add(1)
	h.log.Warn("session ended: client does not read", "client", cl.ID, "topic", pk.TopicName)
	p.kill()
}
