package rollout

import "encoding/json"

// Signal is the name of a signal or update. The name carries the intent; the payload only adds who, why and how far.
type Signal string

// The signals.
const (
	SignalPause     Signal = "pause"
	SignalResume    Signal = "resume"
	SignalAbort     Signal = "abort"
	SignalApprove   Signal = "approve"
	SignalPromote   Signal = "promote"
	SignalRetry     Signal = "retry"
	SignalViolation Signal = "violation"
)

// Signals are all signals, in the order in which simultaneous ones count: abort and violation first.
func Signals() []Signal {
	return []Signal{SignalAbort, SignalViolation, SignalPause, SignalRetry, SignalResume, SignalApprove, SignalPromote}
}

// Ask is a signal's or update's payload. Every field is optional.
type Ask struct {
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	Full   bool   `json:"full,omitempty"` // promote: skip all stages that are left
}

// Event is something that happened to a rollout. Exactly one of the types below.
type Event interface{ event() }

type (
	// Begin starts a fresh State, or wakes one that was carried over: the task in flight is run again.
	Begin struct{}
	// Asked is a signal or an update.
	Asked struct {
		Signal Signal
		Ask    Ask
	}
	// CancelRequested is Temporal's own cancel.
	CancelRequested struct{}
	// Broken is an error inside Aviary that leaves only restoring.
	Broken struct{ Reason string }
	// Tick is the moment that State.Wake asked for.
	Tick struct{}
	// TaskDone is a task's good end. Observed is set for Observe.
	TaskDone struct {
		ID       int64
		Observed *ObserveResult  // of Observe
		Cursor   json.RawMessage // of Validate: the position before any traffic moves
	}
	// TaskFailed is a task's bad end, after Temporal's retries.
	TaskFailed struct {
		ID     int64
		Type   string // wire name of the error type: InvalidRollout, OwnershipLost, DriverError, …
		Reason string
	}
)

func (Begin) event()           {}
func (Asked) event()           {}
func (CancelRequested) event() {}
func (Broken) event()          {}
func (Tick) event()            {}
func (TaskDone) event()        {}
func (TaskFailed) event()      {}

// Error types, as they stand in Temporal's histories.
const (
	ErrInvalidRollout = "InvalidRollout"
	ErrOwnershipLost  = "OwnershipLost"
	ErrWorkerDraining = "WorkerDraining"
	ErrProvider       = "ProviderError"
	ErrDriver         = "DriverError"
)

// Route is the whole desired state of one agent's traffic, as sent to a data plane.
type Route struct {
	Driver     string     `json:"driver"`
	Target     string     `json:"target"`
	Agent      string     `json:"agent"`
	Stable     string     `json:"stable"`
	Canary     string     `json:"canary,omitempty"` // empty after a promotion
	Weight     Weight     `json:"weight"`
	Mirror     Weight     `json:"mirror,omitempty"` // of stable's requests, copied to the canary; only with weight 0
	Owner      string     `json:"owner"`
	Revision   int64      `json:"revision"`
	Lease      Duration   `json:"lease"`
	OnRollback OnRollback `json:"on_rollback,omitempty"`
	Object     *Object    `json:"object,omitempty"`   // nil: the data plane goes by the agent's name
	Rollback   bool       `json:"rollback,omitempty"` // traffic is being taken back from Canary
	Promoted   bool       `json:"promoted,omitempty"` // Stable was the canary, and stays
}

// Share is what the canary gets in words: "5%", or "mirror 10%".
func (r Route) Share() string { return share(r.Weight, r.Mirror) }

// Exposed reports whether requests reach the canary, for users to see or as copies.
func (r Route) Exposed() bool { return r.Weight > 0 || r.Mirror > 0 }

// ObserveRequest is the input of Observe: one slice of watching.
type ObserveRequest struct {
	Spec   Spec            `json:"spec"`
	Stage  int             `json:"stage"`
	Route  Route           `json:"route"` // renewed while watching
	Cursor json.RawMessage `json:"cursor,omitempty"`
	// Slice is the longest the activity may watch before it reports.
	Slice Duration `json:"slice"`
	// Gate: return as soon as Remaining more has been observed and the stage's gate is met. Without it (paused, awaiting
	// approval) only trouble ends the slice early.
	Gate      bool     `json:"gate"`
	Remaining Duration `json:"remaining"`
	// Requests the stage has seen so far, against MinRequests.
	Requests Requests `json:"requests"`
	// Frozen, SourceDown, PlaneDown and Mismatch are what the rollout knows already, so that only a change is reported.
	Frozen     string `json:"frozen,omitempty"`
	SourceDown string `json:"source_down,omitempty"`
	Mismatch   string `json:"mismatch,omitempty"`
	PlaneDown  string `json:"plane_down,omitempty"`
	// Tolerate: a violation is known and waits for a human, so only a safety violation is reported.
	Tolerate bool `json:"tolerate,omitempty"`
	// Drifted: somebody else's change is known and waits for a human, so the route is neither renewed nor put back.
	Drifted bool `json:"drifted,omitempty"`
}

// Finding says why a slice ended.
type Finding string

// The findings.
const (
	FoundNothing   Finding = "slice"     // the slice is over
	FoundReady     Finding = "ready"     // long enough, and the gate is met
	FoundViolation Finding = "violation" // a check is violated
	FoundSafety    Finding = "safety"    // a safety violation
	FoundNoData    Finding = "no_data"   // past no_data_timeout without canary requests or without an answer
	FoundSource    Finding = "source"    // the metrics source stopped answering, or answers again (SourceDown)
	FoundFreeze    Finding = "freeze"    // both arms bad at once began or ended (Frozen)
	FoundDrift     Finding = "drift"     // somebody else changed the weights, twice
	FoundLost      Finding = "lost"      // another owner holds the route
	FoundPlane     Finding = "plane"     // the data plane stopped answering, or answers again (PlaneDown)
	FoundMismatch  Finding = "mismatch"  // the comparison began or ceased to be in doubt (Mismatch)
)

// ObserveResult is the outcome of one slice.
type ObserveResult struct {
	Finding    Finding         `json:"finding"`
	Reason     string          `json:"reason,omitempty"` // one sentence
	Observed   Duration        `json:"observed"`         // watched with numbers coming in, at most the slice's length
	Cursor     json.RawMessage `json:"cursor,omitempty"`
	Requests   Requests        `json:"requests"` // seen in this slice, and compared
	Before     Requests        `json:"before"`   // under the weight before or while settling: of the rollout, and not of the stage
	Verdict    Verdict         `json:"verdict"`  // of guards and the stage's checks
	Gate       Verdict         `json:"gate"`     // with promotion criteria
	Evidence   []Evidence      `json:"evidence,omitempty"`
	Blame      string          `json:"blame,omitempty"` // the check a violation is blamed on
	Frozen     string          `json:"frozen,omitempty"`
	SourceDown string          `json:"source_down,omitempty"`
	PlaneDown  string          `json:"plane_down,omitempty"`
	Mismatch   string          `json:"mismatch,omitempty"`
	Settling   Duration        `json:"settling,omitempty"` // how much longer nothing is compared after a weight change; max_hold waits for it
	Settles    Duration        `json:"settles,omitempty"`  // the same in histories of workers before, for which max_hold went on
	PutBack    string          `json:"put_back,omitempty"` // somebody else's change that was put back, the first time
	Series     []Point         `json:"series,omitempty"`
	Polls      int64           `json:"polls"`
}

// Command is something Step wants done. Exactly one of the types below.
type Command interface{ command() }

type (
	// Run starts an activity and abandons the one in flight, if any. Exactly one of Route, Observe and Validate is set.
	Run struct {
		Task    Task
		Route   *Route          // SetWeight, Restore, Finalize
		Observe *ObserveRequest // Observe
		Spec    *Spec           // Validate
		Summary string          // for the Temporal UI, such as "observe 5% · stage 1/4"
	}
	// Tell notifies the humans. It is best effort and gates nothing.
	Tell struct{ Notice Notice }
	// Finish ends the workflow in the terminal phase of the State.
	Finish struct{}
)

func (Run) command()    {}
func (Tell) command()   {}
func (Finish) command() {}

// Urgency says how loudly a notice is told.
type Urgency string

// The urgencies.
const (
	Info  Urgency = "info"
	Warn  Urgency = "warn"
	Alert Urgency = "alert" // somebody should look now
)

// Notice is what the humans are told.
type Notice struct {
	ID       string   `json:"id"` // unique within the rollout, the same at every retry
	Owner    string   `json:"owner"`
	Notify   Notify   `json:"notify"`
	Agent    string   `json:"agent"`
	Stable   string   `json:"stable"`
	Canary   string   `json:"canary"`
	Urgency  Urgency  `json:"urgency"`
	Decision Decision `json:"decision"`
	Status   Status   `json:"status"`
}
