// Package cloud is the companion publisher: it composes data, training,
// evaluation, registry, signing, rollouts and reception into one fleet folder
// and one hub, and wires what flows back.
//
// A fleet is a folder:
//
//	fleet.yaml   name and addresses
//	keys/        role keys: root, targets and models belong to the owner and may
//	             be taken offline; rollouts, snapshot and timestamp are the hub's
//	ca/          certificates (cloud/identity)
//	registry/    database and blobs (cloud/registry)
//
// The owner's commands (push, release) and the hub work on the same folder at
// the same time; the hub notices what the others wrote. The hub signs only with
// the online keys: a release is signed where the models key is.
package cloud
