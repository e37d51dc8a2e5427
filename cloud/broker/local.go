package broker

import (
	"context"
	"errors"
	"fmt"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/droverhq/drover/agent/wire"
)

// localQueue is how many messages wait for the hub in this process; with
// wire.MaxMessage each, 32 MiB.
const localQueue = 256

// delivery is a message on its way to a handler in this process.
type delivery struct {
	handle  func(topic string, payload []byte)
	topic   string
	payload []byte
}

// ErrStopped is returned after the broker has stopped.
var ErrStopped = errors.New("broker: stopped")

// Publish publishes in the hub's name, without a connection. It returns when
// every session has the message in its queue. It may be called before Run.
func (b *Broker) Publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-b.done:
		return ErrStopped
	default:
	}
	if err := Authorize(b.hub(), Write, topic); err != nil {
		return err
	}
	if len(payload) > wire.MaxMessage {
		return fmt.Errorf("broker: publish %s: %w: %d bytes, allowed %d", topic, wire.ErrTooLarge, len(payload), wire.MaxMessage)
	}
	if err := b.server.Publish(topic, payload, retained, min(qos, 1)); err != nil {
		return fmt.Errorf("broker: publish %s: %w", topic, err)
	}
	return nil
}

// Subscribe calls handle for every message that matches filter, retained ones
// first, all on one goroutine of Run, in order. When handlers are slow, the
// devices that publish are slowed down; nothing is lost but what the hub itself
// published while the queue was full.
func (b *Broker) Subscribe(ctx context.Context, filter string, _ byte, handle func(topic string, payload []byte)) error {
	if err := Authorize(b.hub(), Read, filter); err != nil {
		return err
	}
	id := int(b.nextID.Add(1))
	err := b.server.Subscribe(filter, id, func(_ *mqtt.Client, _ packets.Subscription, pk packets.Packet) {
		d := delivery{handle: handle, topic: pk.TopicName, payload: pk.Payload}
		if pk.Origin == mqtt.InlineClientId {
			// Waiting here could be waiting for oneself.
			select {
			case b.local <- d:
			default:
				b.stats.dropped.Add(1)
			}
			return
		}
		select {
		case b.local <- d:
		case <-b.done:
		}
	})
	if err != nil {
		return fmt.Errorf("broker: subscribe %s: %w", filter, err)
	}
	return ctx.Err()
}

func (b *Broker) hub() Identity { return Identity{Fleet: b.cfg.Fleet, Name: HubName} }

func (b *Broker) deliver(ctx context.Context) error {
	for {
		select {
		case d := <-b.local:
			d.handle(d.topic, d.payload)
		case <-ctx.Done():
			return nil
		}
	}
}
