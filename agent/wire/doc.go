// Package wire defines every byte that crosses between a device and the cloud:
// topics, messages, the release manifest, the rollout plan, their limits and
// versions. Device and cloud meet only here.
//
// # Parties
//
// The owner holds the offline keys (root, targets, models). The hub holds the
// online keys (rollouts, snapshot, timestamp) and speaks to devices through an
// MQTT broker, which is trusted with nothing: whatever it alters, drops,
// delays or repeats, a device installs only what the owner signed.
//
// # Topics
//
// All below drover/v1/{fleet}/ (see Topics). A device is the name in its
// client certificate; it writes only below d/{shard}/{device}/ and reads only
// trust/#, blob/# and its own desired, command, certificate and blob.
//
//	trust/current                  retained  Current: timestamp and snapshot
//	trust/{role}/{version}         retained  TUF metadata, raw bytes: root, targets, models, rollouts
//	blob/{sha256}/{chunk}          QoS 0     ChunkSize bytes of a blob, to whoever listens
//	d/{shard}/{device}/online      retained  Online, and the last will
//	d/{shard}/{device}/state       retained  State: the device's twin
//	d/{shard}/{device}/event       QoS 1     Event: update steps, faults, swaps
//	d/{shard}/{device}/telemetry   QoS 1     Telemetry: aggregated statistics, never per frame
//	d/{shard}/{device}/get         QoS 1     Get: chunks wanted
//	d/{shard}/{device}/sample/{id} QoS 1     reserved
//	d/{shard}/{device}/desired     retained  reserved
//	d/{shard}/{device}/command     QoS 1     reserved
//	d/{shard}/{device}/renew       QoS 1     Renew: a certificate wanted
//	d/{shard}/{device}/certificate QoS 1     Certificate: one, or the word that one is due
//	d/{shard}/{device}/blob/{c}    QoS 0     Repair: a chunk for this device alone
//
// # Releases
//
// A release is a Manifest, one JSON blob. The role models signs it as target
// release/{model}/{version}. The role rollouts signs, as target rollout/{id},
// the same length and digest with a Plan as custom field: who gets it. A
// device whose id and labels the newest matching plan selects fetches the
// manifest, then the blobs it names.
//
// # Chunks
//
// A device that lacks chunks of a blob listens to the blob's topic, then sends
// a Get. The hub gathers what all devices ask for and sends each chunk once,
// at most twice an hour, to everybody who listens. A chunk that a device
// needs after that, or that it wants Alone, comes on the device's own topic
// d/{shard}/{device}/blob/{chunk}: 32 bytes, the SHA-256 of the blob, then the
// chunk (see Repair). The same chunks are to be had by HTTPS: GET PathBlob +
// digest with one Range, and the device's certificate.
//
// A device asks with Again for what it missed while it listened. Whatever
// brings a chunk, it is checked against the digest in the signed manifest.
//
// # Certificates
//
// A device renews its certificate over its session: it sends Renew with a
// certificate request for its own name, signed with the key it enrolled with,
// and the hub answers with Certificate. The hub knows the key from enrolment,
// so that a broker which makes requests up gets nothing. The device takes a
// chain only if it leads to the root it trusts, is for its name and key, and
// ends later than the one it has: a broker that repeats old answers changes
// nothing. Certificate without a chain says what time it is, and whether to
// renew now: a device without a clock need not know, and one whose hub CA was
// replaced hears of it. It may come unasked.
//
// # Encoding
//
// Messages are JSON with a version field v; one of another version is refused
// by name (ErrVersion). Fields that are not known are ignored in messages, so
// that a newer device can talk to an older hub, but refused in manifests and
// plans: there an unknown field may be a condition that must not be missed.
// Every message has an example under testdata, which both sides' tests read.
package wire
