package cloud

import (
	"context"
	"log/slog"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/broker"
)

// session is the hub's place at the broker: in the embedded one's own process,
// or a connection to an external one.
type session interface {
	// Publish returns when the broker has the message.
	Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error
	// Subscribe calls handle for every message that matches, one at a time; a
	// message counts as delivered when handle has returned.
	Subscribe(ctx context.Context, filter string, qos byte, handle func(topic string, payload []byte)) error
	Run(ctx context.Context) error
}

// openSession makes the session; up is called, on a goroutine that may wait,
// whenever a session has begun that may lack retained messages.
func openSession(f *Fleet, up func(), log *slog.Logger) (s session, embedded *broker.Broker, err error) {
	if f.Settings.External == "" {
		b, err := broker.New(broker.Config{
			Fleet: f.Settings.Fleet, Address: f.Settings.Broker.Listen, TLS: f.Authority.TLSConfig(),
			Revoked: f.Authority.Revoked, Log: log,
		})
		if err != nil {
			return nil, nil, err
		}
		up()
		return b, b, nil
	}
	r, err := broker.NewRemote(broker.RemoteConfig{
		Address: f.Settings.External, Fleet: f.Settings.Fleet, Certificate: f.Authority.HubCertificate(), Today: f.Authority.HubCertificate, CA: f.Authority.Pool(),
		OnUp: func(context.Context) { up() }, Log: log,
	})
	return r, nil, err
}

// reports are what the hub listens to of devices.
var reports = [...]wire.Leaf{wire.LeafOnline, wire.LeafState, wire.LeafEvent, wire.LeafTelemetry, wire.LeafGet, wire.LeafRenew}

// listen subscribes to what devices say, and to the hub's own trust topics, so
// that it sees when somebody else writes there.
func (h *Hub) listen(ctx context.Context) error {
	topics := wire.Topics{Fleet: h.fleet.Settings.Fleet}
	for _, leaf := range reports {
		if err := h.session.Subscribe(ctx, topics.Devices(leaf), 1, func(topic string, payload []byte) { h.receive(ctx, topic, payload) }); err != nil {
			return err
		}
	}
	return h.session.Subscribe(ctx, topics.TrustAll(), 1, h.publisher.witness)
}
