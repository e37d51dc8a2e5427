// Package anchor holds what must not go back, the least security epoch the
// device accepts, and what must not be copied, the device's key. Both live in
// a TPM 2.0 where there is one. A file does the first where there is none, and
// says by its assurance that it is the weaker one: whoever can write the disk
// can set it back.
//
// # What stands in the TPM
//
//	base index + 0   counter: an NV counter. It can only be incremented, and a
//	                 new one starts above every counter the TPM ever had.
//	base index + 1   base: what the counter showed at epoch 0, and the counter's
//	                 name; written once, then locked for as long as it exists.
//	key handle       an ECDSA P-256 key for signatures, made by the TPM.
//
// The epoch is counter − base. Removing the counter and defining it again can
// therefore never lower the epoch, and the base cannot be written again.
//
// # What stands in the folder
//
//	tpm.a, tpm.b      the record, 0600, twice: handles, names, the public key,
//	                  and the secret the auth values come from
//	epoch.a, epoch.b  the file anchor's epoch, twice
//	owner-auth        put there by hand when the TPM's owner hierarchy has an
//	                  auth value; needed for provisioning only
//
// # Who is believed
//
// Every read of counter and base goes through an HMAC session keyed by the
// index's auth value and bound to the name in the record. An index that is
// gone, defined anew or defined by somebody else cannot answer such a read, and
// neither can whoever sits on the bus. Each such case is ErrTampered, never
// epoch 0. The same holds for a TPM that has our indices while the folder has
// no record. A TPM that does not answer is ErrUnavailable, until it does.
//
// docs/ANCHOR.md says what this does not protect from, and how to provision
// and reset by hand.
package anchor
