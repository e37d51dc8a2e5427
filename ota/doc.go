// Package ota moves a device from one verified release to the next, or back.
//
// # The two halves
//
// What happens next is decided by Next, a pure function over one literal
// table: the state of the update and what just happened give the new state and
// what is to be done. docs/UPDATE-STATES.md is that table, rendered. Every
// state has a deadline, a bound on restarts and a way to a terminal outcome
// with a reason, so that no update can be stuck.
//
// Updater does it: one loop owns the state, takes trust metadata and chunks
// from the network by mailboxes that never block, and runs the work of one
// state at a time. It journals a state before it begins the state's work.
//
// # What is where
//
// The active slot names the last release that was committed, and only commit
// changes it. A release on trial stands in the candidate slot while it already
// answers the frames. So whatever ends the program, it starts again with a
// release that was probed, watched and committed.
//
// # Restarts
//
// Before activation, a restart takes up the state where it was; bytes that had
// arrived are kept. On trial (activate, probation, and commit until the slots
// have moved) the device starts with the committed release and then tries again
// from activate, with the probation counted from nothing, since a power cut is more frequent than a release that
// brings the machine down; the third restart that nobody asked for during one
// trial ends it by rollback, for then the release is the likely cause. An
// orderly stop of the program does not count.
//
// # Refused releases
//
// A release that was refused or rolled back is remembered with its plan and
// not tried again, until the plan's id or serial changes. Where the fault was
// the network's or the device's (fetch, space, internal) it is tried again
// with growing pauses, MaxTries times.
package ota
