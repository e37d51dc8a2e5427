// Package broker is the MQTT broker of a fleet: an embedded one, and the
// configuration that makes mosquitto behave alike.
//
// # Who may what
//
// A client is who its certificate says (common name), and its client id must
// be that name, so that nobody can end another's session. Everything that is
// not allowed is denied (Authorize):
//
//	hub      everything below drover/v1/{fleet}/
//	device   writes  own online, state (both may be retained), event,
//	                 telemetry, get, sample/{id}
//	         reads   trust/#, blob/#, own desired, command, blob/+
//
// The last will is checked when the client connects: the embedded server would
// publish it later without asking. Shared subscriptions and $SYS are for
// nobody. Sessions are clean and speak MQTT 3.1.1: what nobody uses need not be
// guarded.
//
// # Limits
//
// Packets, connections, unfinished handshakes, unread messages per client and
// unacknowledged messages are bounded. A client that does not read what it
// must not miss is disconnected and counted, and gets the retained messages
// anew when it returns; chunks of blobs are dropped and counted, for devices
// ask again.
//
// # Memory
//
// The embedded broker forgets everything when it stops. The hub publishes its
// retained messages at every start; devices publish theirs at every connect.
package broker
