package rollout

import (
	"encoding/json"
	"time"
)

// StateVersion is the version of State's form that is carried over continue-as-new.
const StateVersion = 1

// Phase is where a rollout stands.
type Phase string

// The phases. A rollout begins in validating; the terminal ones are promoted, rolled_back, aborted, canceled and rejected.
const (
	Validating       Phase = "validating"
	Shifting         Phase = "shifting"
	Observing        Phase = "observing"
	AwaitingApproval Phase = "awaiting_approval"
	Promoting        Phase = "promoting"
	Promoted         Phase = "promoted"
	Restoring        Phase = "restoring"
	RestoreBlocked   Phase = "restore_blocked"
	RolledBack       Phase = "rolled_back"
	Aborted          Phase = "aborted"
	Canceled         Phase = "canceled"
	Rejected         Phase = "rejected" // refused before any traffic moved
)

// Phases are all phases, in the order of a rollout's life.
func Phases() []Phase {
	return []Phase{Validating, Shifting, Observing, AwaitingApproval, Promoting, Promoted, Restoring, RestoreBlocked, RolledBack, Aborted, Canceled, Rejected}
}

// Terminal reports whether nothing more happens in p.
func (p Phase) Terminal() bool {
	switch p {
	case Promoted, RolledBack, Aborted, Canceled, Rejected:
		return true
	}
	return false
}

// State is all that a rollout remembers. It is carried whole over continue-as-new and changes only in Step.
type State struct {
	Version int       `json:"version"`
	Spec    Spec      `json:"spec"`
	Owner   string    `json:"owner"` // workflowID/firstRunID: who may move this agent's traffic
	Phase   Phase     `json:"phase"`
	Stage   int       `json:"stage"`            // index into Spec.Stages
	Weight  Weight    `json:"weight"`           // last weight that the data plane confirmed
	Mirror  Weight    `json:"mirror,omitempty"` // last mirror that it confirmed
	Valid   bool      `json:"valid"`            // Validate found nothing wrong
	Moved   bool      `json:"moved"`            // a weight above 0 was asked for at least once
	Started time.Time `json:"started"`
	Ended   time.Time `json:"ended,omitzero"`

	Revision int64 `json:"revision"` // of the last route sent; only grows
	Task     Task  `json:"task"`     // the one activity in flight, if any
	NextTask int64 `json:"next_task"`
	// Wake is when Step wants a Tick: the task in flight should have ended by then, or a parked one begins anew. Zero: never.
	Wake       time.Time `json:"wake,omitzero"`
	NextNotice int64     `json:"next_notice"`

	Pause *Pause `json:"pause,omitempty"`

	StageStarted time.Time `json:"stage_started,omitzero"` // when the stage's weight was confirmed
	Observed     Duration  `json:"observed"`               // of this stage; without pauses and gaps
	HoldSince    time.Time `json:"hold_since,omitzero"`    // since when the stage overstays, undecided; while it settles, until when
	Approved     string    `json:"approved,omitempty"`     // who let this stage pass

	Requests   Requests        `json:"requests"`         // of this stage
	Total      Requests        `json:"total"`            // of the whole rollout
	Cursor     json.RawMessage `json:"cursor,omitempty"` // the observer's own memory: positions and statistics; opaque here
	Verdict    Verdict         `json:"verdict,omitempty"`
	Evidence   []Evidence      `json:"evidence,omitempty"`    // the latest
	Frozen     string          `json:"frozen,omitempty"`      // why polls are not judged now
	SourceDown string          `json:"source_down,omitempty"` // why the metrics source does not answer
	Mismatch   string          `json:"mismatch,omitempty"`    // why the comparison is in doubt: a share of traffic that is not the weight, a version that changed under its name
	PlaneDown  string          `json:"plane_down,omitempty"`  // why the data plane does not answer
	Drift      string          `json:"drift,omitempty"`       // somebody else's change that waits for a human
	Violation  string          `json:"violation,omitempty"`   // a violation of this stage that waits for a human

	Unsafe    bool       `json:"unsafe,omitempty"`    // taken back for a safety violation: nothing may drain
	Outcome   Phase      `json:"outcome,omitempty"`   // the terminal phase a restore leads to
	Reason    string     `json:"reason,omitempty"`    // one sentence: why it ended or is ending
	Restoring time.Time  `json:"restoring,omitzero"`  // since when
	Decisions []Decision `json:"decisions,omitempty"` // oldest first, the last MaxDecisions
	Series    []Point    `json:"series,omitempty"`    // oldest first, at most MaxPoints, thinned evenly
}

// Bounds on what State keeps, so that it stays far below Temporal's payload limits.
const (
	MaxDecisions = 100
	MaxEvidence  = 30 // decisions that keep their evidence
	MaxPoints    = 400
)

// Pause says who paused a rollout and why.
type Pause struct {
	By     string    `json:"by"` // a human's name, or "aviary"
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}

// Requests counts requests per version.
type Requests struct {
	Stable float64 `json:"stable"`
	Canary float64 `json:"canary"`
}

// Add is r and o together.
func (r Requests) Add(o Requests) Requests { return Requests{r.Stable + o.Stable, r.Canary + o.Canary} }

// Verdict is what the evidence says of a check or of all.
type Verdict string

// The verdicts.
const (
	Met       Verdict = "met"
	Violated  Verdict = "violated"
	Undecided Verdict = "undecided"
	NoData    Verdict = "no_data"
)

// Arm is one version's side of a piece of evidence: x events of n, and the estimate (rate, mean, quantile), if there is one.
type Arm struct {
	N        float64  `json:"n"`
	X        float64  `json:"x"`
	Estimate *float64 `json:"estimate,omitempty"`
}

// Evidence is the numbers behind a verdict. Absent numbers are left out (JSON has no NaN).
type Evidence struct {
	Check   string   `json:"check"`
	Metric  string   `json:"metric"`
	Role    string   `json:"role"` // guard | stage | promotion
	Verdict Verdict  `json:"verdict"`
	Stable  Arm      `json:"stable"`
	Canary  Arm      `json:"canary"`
	Change  *float64 `json:"change,omitempty"` // relative to stable, bigger is more of the named thing
	Limit   float64  `json:"limit"`
	Allowed *float64 `json:"allowed,omitempty"` // the canary's own value that the floor still allows, where only the floor lets the change pass
	EValue  *float64 `json:"e_value,omitempty"`
	Lower   *float64 `json:"lower,omitempty"`
	Upper   *float64 `json:"upper,omitempty"`
	Needed  *float64 `json:"needed,omitempty"` // canary requests still needed
	Note    string   `json:"note,omitempty"`
}

// DecisionKind names a decision.
type DecisionKind string

// The decisions.
const (
	DecideStart    DecisionKind = "start"
	DecideShift    DecisionKind = "shift"
	DecideAdvance  DecisionKind = "advance"
	DecideHold     DecisionKind = "hold"
	DecidePause    DecisionKind = "pause"
	DecideResume   DecisionKind = "resume"
	DecideApproval DecisionKind = "await_approval"
	DecideApprove  DecisionKind = "approve"
	DecidePromote  DecisionKind = "promote"
	DecideRollback DecisionKind = "roll_back"
	DecideRetry    DecisionKind = "retry"
	DecideBlocked  DecisionKind = "restore_blocked"
	DecideFreeze   DecisionKind = "freeze"
	DecideThaw     DecisionKind = "thaw"
	DecideMismatch DecisionKind = "traffic_share"
	DecideSource   DecisionKind = "metrics_source"
	DecidePlane    DecisionKind = "data_plane"
	DecideOverdue  DecisionKind = "task_overdue"
	DecideDrift    DecisionKind = "drift"
	DecideIgnore   DecisionKind = "ignore"
	DecideEnd      DecisionKind = "end"
)

// Decision is a decision with its evidence and who or what made it.
type Decision struct {
	At       time.Time    `json:"at"`
	Kind     DecisionKind `json:"kind"`
	Phase    Phase        `json:"phase"` // the phase it leads to
	Stage    string       `json:"stage,omitempty"`
	Weight   Weight       `json:"weight"`
	By       string       `json:"by"` // a human's name, or "aviary"
	Reason   string       `json:"reason"`
	Evidence []Evidence   `json:"evidence,omitempty"`
}

// Point is one moment of the series behind sparklines and charts.
type Point struct {
	At     time.Time `json:"at"`
	Weight Weight    `json:"weight"`
	EValue float64   `json:"e_value"`
	// Values holds the estimates per metric over the interval before At: [stable, canary].
	Values map[string][2]float64 `json:"values,omitempty"`
}

// TaskKind names an activity that moves a rollout on. The values are the activities' wire names.
type TaskKind string

// The tasks.
const (
	TaskValidate  TaskKind = "Validate"
	TaskSetWeight TaskKind = "SetWeight"
	TaskObserve   TaskKind = "Observe"
	TaskRestore   TaskKind = "Restore"
	TaskFinalize  TaskKind = "Finalize"
)

// Task is an activity in flight. ID matches its end to it; a stale end is ignored.
type Task struct {
	ID       int64     `json:"id,omitempty"`
	Kind     TaskKind  `json:"kind,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Paused   bool      `json:"paused,omitempty"`    // began while the rollout was paused
	PausedIn Duration  `json:"paused_in,omitempty"` // how long the rollout was paused since, up to the last resume
}

// None reports whether no activity is in flight.
func (t Task) None() bool { return t.Kind == "" }

// StageNow is the current stage. It is the zero Stage when there is none.
func (s State) StageNow() Stage {
	if s.Stage < 0 || s.Stage >= len(s.Spec.Stages) {
		return Stage{}
	}
	return s.Spec.Stages[s.Stage]
}

// Status is what people see: the answer of the query and of updates.
type Status struct {
	Agent       string     `json:"agent"`
	Stable      string     `json:"stable"`
	Canary      string     `json:"canary"`
	Phase       Phase      `json:"phase"`
	Paused      *Pause     `json:"paused,omitempty"`
	Stage       string     `json:"stage,omitempty"`
	StageIndex  int        `json:"stage_index"`
	Stages      int        `json:"stages"`
	Weight      Weight     `json:"weight"`
	Mirror      Weight     `json:"mirror,omitempty"`
	Started     time.Time  `json:"started"`
	Ended       time.Time  `json:"ended,omitzero"`
	Observed    Duration   `json:"observed"`
	Duration    Duration   `json:"duration"` // of the stage
	Hold        time.Time  `json:"hold_since,omitzero"`
	Requests    Requests   `json:"requests"`
	MinRequests int64      `json:"min_requests,omitempty"`
	Verdict     Verdict    `json:"verdict,omitempty"`
	Evidence    []Evidence `json:"evidence,omitempty"`
	Frozen      string     `json:"frozen,omitempty"`
	SourceDown  string     `json:"source_down,omitempty"`
	Mismatch    string     `json:"mismatch,omitempty"`
	PlaneDown   string     `json:"plane_down,omitempty"`
	Violation   string     `json:"violation,omitempty"`
	Outcome     Phase      `json:"outcome,omitempty"`
	Reason      string     `json:"reason,omitempty"`
	Owner       string     `json:"owner"`
	Last        *Decision  `json:"last_decision,omitempty"`
}

// Share is what the canary gets in words: "5%", or "mirror 10%".
func (s Status) Share() string { return share(s.Weight, s.Mirror) }
