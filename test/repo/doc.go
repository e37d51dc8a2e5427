// Package repo is a fleet's metadata repository in memory, for tests that play
// the attacker. A Fleet signs honestly, with the code the hub uses. A World is
// one publication taken apart: every document can be edited, signed again with
// any keys, or replaced by arbitrary bytes, and offered to a verifier.
//
// An attack is written as what the attacker holds. Somebody who owns the broker
// alters a World's Raw bytes. Somebody who stole a key edits a document and
// seals the World with the keys he has; Seal signs from the bottom up, so that
// everything above an edited document names its new bytes.
package repo
