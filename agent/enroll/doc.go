// Package enroll makes a new device a member of a fleet, and keeps what it got:
// its identity.
//
// The operator's token (wire.Token) says where the hub is and what its public
// key is (the SHA-256 of the SPKI). The device talks to nobody else: neither
// the system's roots nor names nor dates count, only that pin. It sends the
// token's secret and a certificate request for its own key, which never leaves
// the device, and checks what comes back: the certificate must be for its name
// and its key, lead to the root that came along, and root.json must have the
// digest that is in the token.
//
// # Files
//
//	identity.json   Identity, 0600: written in one piece, at enrolment and at renewal
//	device.key      PEM, 0600: only where the key is not in a TPM
package enroll
