// Package trust turns untrusted bytes into a verified release, or a named
// refusal. It is the only verifier: devices, the command line and the hub use
// this one. It knows nothing of networks; whoever has bytes offers them, from
// a broker, a file or a USB stick alike.
//
// # Parties and keys
//
// The roles are those of The Update Framework, all with Ed25519 keys and a
// threshold each:
//
//	root       offline  names the keys of root, targets, snapshot and timestamp
//	targets    offline  delegates to models and rollouts, and does nothing else
//	models     offline  signs releases: targets release/{model}/{version}
//	rollouts   online   signs who gets which: targets rollout/{id}, the plan as custom field
//	snapshot   online   says which versions of targets, models and rollouts belong together
//	timestamp  online   says which snapshot is the newest, and what time it is
//
// A plan counts only if the role models signed the release it names, with the
// same length and digest. Both delegations end the search, their paths do not
// meet, and there are no others: metadata that delegates anything else is
// refused as a whole.
//
// # A refresh
//
// Bytes come in by OfferCurrent and OfferRole, in any order and any number;
// little of it is kept. Refresh then follows the chain of roots one version at
// a time, each signed by its predecessor's and its own keys, verifies the
// newest timestamp and all that hangs on it by digest, and saves everything in
// one go, or nothing. What was refused stays without effect: a good offer that
// comes later is taken. A part that has not come yet is a MissingError.
//
// # Time
//
// A device may have no clock. The version of a timestamp is the Unix time of
// its signing; the reference time is the last verified one, plus the time
// since then by the clock that counts from boot, and never less than the build
// time of the program. It does not step back, so that a hoard of old
// timestamps cannot stretch a day. The system clock is never asked. A timestamp
// beyond the expiry of the root is refused, so that a stolen key cannot move
// devices arbitrarily far; a root that takes away a timestamp key also takes
// back what that key did to the clock.
//
// # Rollback
//
// The floor holds the highest version seen of each role and the clock. It is
// kept apart from the metadata, in more than one copy; metadata may be lost or
// damaged on disk and is then asked for again, but nothing below the floor is
// accepted. A root that takes away a snapshot key resets the floor of what the
// snapshot lists, for a thief might have driven it to the end of the numbers.
//
// # Expiry
//
// Metadata past its expiry stops updates: Select answers ErrExpired and Status
// says stale. What runs on the device goes on running.
package trust
