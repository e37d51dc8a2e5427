// Package link is a device's one authenticated MQTT session.
//
// # Session
//
// The client id is the device's name, which is also in its certificate. Both
// sides prove themselves by TLS 1.3. The device checks that the broker's
// certificate leads to the fleet's root and bears the broker's name, but not
// its dates: without a battery-backed clock the device would lock itself out
// after every power cut, and a stolen broker key gains nothing but a broker,
// which is trusted with nothing anyway.
//
// A session begins with the subscriptions; only then does the device say that
// it is online, so that whoever sees it online reaches it. It ends with
// online:false: published on an orderly end, else the last will. Sessions are
// clean; nothing survives one, neither here nor in the broker. What must not be
// lost is retained, or kept by its sender until it is acknowledged
// (agent/outbox).
//
// # Incoming messages
//
// Handlers run on goroutines of this package, never in a callback of the MQTT
// client: that deadlocks as soon as a handler publishes during a burst. There
// are two queues, each with one goroutine and bounds on messages and bytes.
// Subscriptions with QoS 0 share one: what does not fit is dropped and
// counted. Those with QoS 1 share the other: when something does not fit there,
// it is logged and counted, and the subscription is made anew as soon as the
// queue is empty, which brings every retained message again.
//
// # A hostile broker
//
// Every packet passes a check of its type, quality of service and length before
// the MQTT client sees it, for that would allocate any announced length (256
// MiB) and trusts the shape of acknowledgements.
package link
