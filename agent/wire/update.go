package wire

// UpdateState is a step of an update on the device. The order is Updates'.
type UpdateState string

// The states. Each but Idle has a deadline and ends, at the latest then, in
// Idle with an Outcome.
const (
	Idle      UpdateState = "idle"
	Verify    UpdateState = "verify"    // manifest fetched, checked against both signed roles
	Fetch     UpdateState = "fetch"     // chunks arrive
	Assemble  UpdateState = "assemble"  // whole blob put together, synced, its digest checked
	Check     UpdateState = "check"     // parsed: contract, labels, operators, epoch, space
	Probe     UpdateState = "probe"     // run in a cage: golden inputs, latency, memory
	Shadow    UpdateState = "shadow"    // sees live frames beside the active model
	Activate  UpdateState = "activate"  // becomes the active one
	Probation UpdateState = "probation" // watched; may still return
	Commit    UpdateState = "commit"    // the previous release is given up
	Rollback  UpdateState = "rollback"  // the previous release is made active again
)

// Outcome is how an update ended.
type Outcome string

// The outcomes.
const (
	Committed  Outcome = "committed"
	RolledBack Outcome = "rolled-back" // was active, returned
	Refused    Outcome = "refused"     // never was active
)

// Reason is why an update was refused or rolled back. Hubs count them.
type Reason string

// The reasons.
const (
	ReasonNone        Reason = ""
	ReasonSignature   Reason = "signature"   // not signed by enough keys of the role
	ReasonRollback    Reason = "rollback"    // metadata older than what the device has seen
	ReasonExpired     Reason = "expired"     // metadata past its expiry
	ReasonDigest      Reason = "digest"      // bytes differ from the signed digest
	ReasonSequence    Reason = "sequence"    // version or time out of sequence: a wrong clock, exchanged messages
	ReasonMalformed   Reason = "malformed"   // signed, but not readable by this agent
	ReasonEpoch       Reason = "epoch"       // security epoch below the device's
	ReasonRequires    Reason = "requires"    // needs a capability this device lacks
	ReasonFetch       Reason = "fetch"       // chunks did not come in time or budget
	ReasonSpace       Reason = "space"       // no room on the device
	ReasonModel       Reason = "model"       // no model the runtime accepts
	ReasonContract    Reason = "contract"    // tensors differ from the manifest
	ReasonGolden      Reason = "golden"      // golden inputs gave other outputs
	ReasonLatency     Reason = "latency"     // over the latency budget
	ReasonMemory      Reason = "memory"      // over the memory budget
	ReasonCrash       Reason = "crash"       // the child died
	ReasonHang        Reason = "hang"        // the child stopped answering
	ReasonNoFrames    Reason = "no-frames"   // probation saw too few frames by its deadline
	ReasonCollapse    Reason = "collapse"    // one class on everything
	ReasonDeadline    Reason = "deadline"    // a step took too long
	ReasonInterrupted Reason = "interrupted" // restarts during one step went over the limit
	ReasonSuperseded  Reason = "superseded"  // a newer plan came
	ReasonPlan        Reason = "plan"        // a bundle that came by hand has no plan for this device
	ReasonInternal    Reason = "internal"    // a fault of the agent or the device
)
