// Package publish signs: it is the owner's and the hub's side of what ota/trust
// verifies, and hands out nothing that ota/trust would refuse.
//
// # Who signs what, and how long it holds
//
//	root       offline  365 days  the keys of root, targets, snapshot, timestamp
//	targets    offline  365 days  the keys of models and rollouts
//	models     offline  180 days  the list of releases; every release renews it
//	rollouts   hub        7 days  the plans that are open
//	snapshot   hub        7 days  which versions belong together
//	timestamp  hub        1 day   the newest snapshot, and the time
//
// Offline roles hold long, because somebody has to come with a key; that their
// lists are not held back is what the short-lived roles are for. A hub that is
// down for a day makes its devices stale: they take no update, and go on
// running what they have. What is past half its time is due for renewal (Due).
//
// # Order of work
//
// Init makes a fleet. AddRelease (models) and SetPlans (rollouts) append a new
// version of their role and change nothing on devices. Publish appends a
// snapshot and a timestamp over the newest of everything and gives what is to
// be retained on the broker.
//
// What the owner signs beside releases is a Draft: DraftKeys changes the keys
// or the threshold of a role, DraftRenewal moves an expiry, DraftRelease adds a
// release that one person alone cannot sign. A Draft goes as a file to every
// holder of a key, each signs on a machine of his own, and Finish takes it in
// when all signatures are there: no machine ever needs all keys. A key is any
// crypto.Signer with an Ed25519 public key, or even something that only takes
// bytes and gives signatures (Payload, Attach). RotateRoot and Delegate are the
// same in one step, for whoever has all keys at hand.
//
// All metadata goes into a Repo, by version, and is never changed there. Only
// one publisher may run at a time; the Repo sees to that (a lease).
package publish
