package cloud

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/droverhq/drover/agent/wire"
	"github.com/droverhq/drover/cloud/identity"
)

// bus is the hub's own session with the broker, embedded or not.
type bus struct {
	client    mqtt.Client
	in        chan message  // what devices sent
	connected chan struct{} // cap 1: a session began; what is retained may be gone
}

type message struct {
	topic   string
	payload []byte
}

const (
	busQueue   = 4096
	busTimeout = 15 * time.Second
)

// errBroker is wrapped when the broker does not take a message.
var errBroker = errors.New("cloud: broker")

// newBus prepares the session; leaves are what is listened to.
func newBus(ctx context.Context, fleet, address string, tlsConfig *tls.Config, leaves []wire.Leaf, log *slog.Logger) *bus {
	b := &bus{in: make(chan message, busQueue), connected: make(chan struct{}, 1)}
	topics := wire.Topics{Fleet: fleet}
	o := mqtt.NewClientOptions().AddBroker("tls://" + address).SetClientID(identity.HubName).SetTLSConfig(tlsConfig).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(true).SetConnectRetry(true).
		SetConnectRetryInterval(time.Second).SetMaxReconnectInterval(10 * time.Second).SetWriteTimeout(busTimeout).
		SetKeepAlive(30 * time.Second).SetOrderMatters(true)
	o.SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) {
		// Whoever takes from the channel never waits for the broker, so that a
		// full one is only backpressure, and no deadlock.
		select {
		case b.in <- message{m.Topic(), m.Payload()}:
		case <-ctx.Done():
		}
	})
	o.SetOnConnectHandler(func(c mqtt.Client) {
		filters := map[string]byte{}
		for _, l := range leaves {
			filters[topics.Devices(l)] = 1
		}
		c.SubscribeMultiple(filters, nil) // not waited for: this is a handler
		select {
		case b.connected <- struct{}{}:
		default:
		}
		log.Info("hub is connected to the broker", "broker", address)
	})
	o.SetConnectionLostHandler(func(_ mqtt.Client, err error) { log.Warn("hub lost the broker", "error", err) })
	b.client = mqtt.NewClient(o)
	return b
}

// run keeps the session until ctx ends.
func (b *bus) run(ctx context.Context) error {
	b.client.Connect() // retried for ever by itself
	<-ctx.Done()
	b.client.Disconnect(500)
	return nil
}

// publish sends one message and waits until it is on its way (QoS 0) or
// acknowledged.
func (b *bus) publish(ctx context.Context, topic string, payload []byte, qos byte, retained bool) error {
	if !b.client.IsConnectionOpen() {
		return fmt.Errorf("%w: not connected", errBroker)
	}
	t := b.client.Publish(topic, qos, retained, payload)
	select {
	case <-t.Done():
	case <-time.After(busTimeout):
		return fmt.Errorf("%w: no answer within %v", errBroker, busTimeout)
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := t.Error(); err != nil {
		return fmt.Errorf("%w: %w", errBroker, err)
	}
	return nil
}
