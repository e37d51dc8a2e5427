// Package identity is who is who in a fleet: its certificate authority, the
// hub's certificates, the devices' certificates, their revocation, and the
// one-time tokens by which a new device becomes a member.
//
// # Certificates
//
// All keys are ECDSA P-256.
//
//	root          offline; 20 years; signs intermediates only       ca.crt, ca.key
//	└ hub CA      the hub's, revocable by the root; 5 years          hub-ca.crt, hub-ca.key
//	  ├ server    names and addresses of the hub; broker and HTTPS   server.crt, server.key
//	  ├ client    common name "hub": the hub as a client of a broker client.crt, client.key
//	  └ device    common name = device name; 90 days                 on the device
//
// A device trusts the root alone, so that a stolen hub CA is replaced without
// touching a device. A device certificate is good for client authentication
// only: a device cannot pose as the broker to its neighbours. The reserved
// name "hub" is never given to a device.
//
// Revocation is crl.pem: the list of the root (which may revoke the hub CA)
// and the list of the hub CA (which revokes devices), in this order. Every
// process that has the folder open sees a change at the next question.
//
// A device's certificate is renewed over its session (Renew): for the name and
// the key it enrolled with, which stand in issued/{device}.json with all of its
// certificates that are still good. The former one is not revoked; throwing a
// device out (RevokeDevice) means all of them.
//
// The hub CA is replaced with the root key (RotateHubCA): at once, or with a
// grace in which both are good. A member whose chain ends in a revoked hub CA is
// still let in by TLSConfig if its key is the recorded one, so that it can
// renew; a thief of the hub CA has no such key. The files of a rotation are
// staged in next/ and moved when they are whole; who opens the folder next
// finishes what was cut off. Everything follows changes of the folder while it
// runs.
//
// # Enrolment
//
// An operator makes a token (wire.Token): where the hub is, the digest of its
// public key, the digest of root.json, and a secret of 160 bits. Only the
// SHA-256 of the secret is stored. A secret that begins with "r" may replace a
// device of the same name, and one that ends in "." and a name is good for that
// name only; the holder cannot change either, for another secret has another
// digest. The device makes a key, sends a certificate request and
// the secret over HTTPS, having checked the hub's key against the token, and
// gets its chain, the root certificate, the broker's address and root.json. A
// token is spent before the certificate is made: a reply that is lost costs a
// token, never a second certificate.
package identity
