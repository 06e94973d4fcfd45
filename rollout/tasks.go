package rollout

import (
	"fmt"
	"time"
)

// Limits on how long tasks may take before Step asks after them.
const (
	MaxSlice      = time.Hour        // the longest slice of watching
	SliceGrace    = 3 * time.Minute  // over a slice's length, before it counts as stuck
	ValidateLimit = 2 * time.Minute  // then the rollout is rejected
	ShiftLimit    = 15 * time.Minute // then the rollout is taken back
	FinalizeLimit = 15 * time.Minute // then the promotion is tried anew, and the humans are told
	ParkAfter     = 2 * time.Minute  // of restoring in vain, then the rollout is parked visibly
	RestoreRetry  = time.Minute      // between the first tries after a final refusal
	BlockedRetry  = 10 * time.Minute // between fresh tries beside the one in flight
)

func (m *machine) validate() {
	spec := m.Spec
	m.run(Run{Task: Task{Kind: TaskValidate}, Spec: &spec, Summary: "validate"}, ValidateLimit)
}

// shift moves to the current stage's weight under a new revision.
func (m *machine) shift() {
	m.Phase = Shifting
	m.Revision++
	m.StageStarted, m.Observed, m.HoldSince, m.Approved = time.Time{}, 0, time.Time{}, ""
	m.Requests, m.Verdict, m.Evidence, m.Violation = Requests{}, "", nil, ""
	m.Mismatch = "" // of the weight before
	m.setWeight()
	m.decide(DecideShift, Aviary, fmt.Sprintf("from %s to %s", share(m.Weight, m.Mirror), m.StageNow().Share()), nil, "")
}

func (m *machine) setWeight() {
	m.Moved = true
	r := m.route(m.StageNow().Weight, m.StageNow().Mirror)
	m.run(Run{Task: Task{Kind: TaskSetWeight}, Route: &r, Summary: m.summary("set " + m.StageNow().Share())}, ShiftLimit)
}

// shifted: the data plane confirmed the stage's weight.
func (m *machine) shifted() {
	stage := m.StageNow()
	m.Weight, m.Mirror, m.StageStarted = stage.Weight, stage.Mirror, m.now
	if m.Pause == nil && stage.passesAtOnce() {
		m.advance(Aviary, "the stage asks nothing")
		return
	}
	m.Phase = Observing
	m.observe()
	m.decide(DecideShift, Aviary, fmt.Sprintf("the canary has %s for at least %s", stage.Share(), stage.Duration), nil, Info)
}

// passesAtOnce reports whether the stage asks nothing at all, as the last one of weight 1.0 usually does.
func (s Stage) passesAtOnce() bool {
	return s.Duration == 0 && s.MinRequests == 0 && len(s.Checks) == 0 && s.Approval != ApprovalRequired
}

// observe watches one more slice.
func (m *machine) observe() {
	gate := m.Phase == Observing && m.Pause == nil
	remaining := max(0, m.StageNow().Duration-m.Observed)
	slice := MaxSlice
	switch {
	case gate && remaining > 0:
		slice = min(slice, remaining.Std())
	case gate && m.HoldSince.IsZero(): // a stage without a duration may hold from its first poll on
		slice = m.Spec.Metrics.Interval.Std()
	case gate:
		slice = min(slice, max(m.Spec.Metrics.Interval.Std(), m.holdDeadline().Sub(m.now)))
	}
	m.run(Run{
		Task: Task{Kind: TaskObserve, Paused: m.Pause != nil},
		Observe: &ObserveRequest{
			Spec: m.Spec, Stage: m.Stage, Route: m.route(m.Weight, m.Mirror), Cursor: m.Cursor,
			Slice: Duration(slice), Gate: gate, Remaining: remaining, Requests: m.Requests,
			Frozen: m.Frozen, SourceDown: m.SourceDown, PlaneDown: m.PlaneDown, Mismatch: m.Mismatch,
			Tolerate: m.Violation != "", Drifted: m.Drift != "",
		},
		Summary: m.summary("observe " + share(m.Weight, m.Mirror)),
	}, slice+SliceGrace)
}

func (m *machine) holdDeadline() time.Time { return m.HoldSince.Add(m.StageNow().MaxHold.Std()) }

func (m *machine) finalize() {
	r := m.route(0, 0)
	r.Stable, r.Canary, r.Promoted, r.Lease = m.Spec.Canary, "", true, 0
	m.run(Run{Task: Task{Kind: TaskFinalize}, Route: &r, Summary: "promote " + m.Spec.Canary}, FinalizeLimit)
}

func (m *machine) restore() {
	r := m.route(0, 0)
	r.Rollback = true
	limit := ParkAfter
	if m.Phase == RestoreBlocked {
		limit = BlockedRetry
	}
	m.run(Run{Task: Task{Kind: TaskRestore}, Route: &r, Summary: "restore " + m.Spec.Stable}, limit)
}

func (m *machine) route(w, mirror Weight) Route {
	policy := m.Spec.Traffic.OnRollback
	if m.Unsafe && policy == Drain {
		policy = Evict
	}
	return Route{
		Driver: m.Spec.Traffic.Driver, Target: m.Spec.Traffic.Target, Agent: m.Spec.Agent, Stable: m.Spec.Stable, Canary: m.Spec.Canary,
		Weight: w, Mirror: mirror, Owner: m.Owner, Revision: m.Revision, Lease: m.Spec.Traffic.Lease, OnRollback: policy,
		Object: m.Spec.Traffic.Object,
	}
}

// run puts r in flight, in place of what is in flight.
func (m *machine) run(r Run, limit time.Duration) {
	m.NextTask++
	r.Task.ID, r.Task.Started = m.NextTask, m.now
	m.Task, m.Wake = r.Task, m.now.Add(limit)
	m.commands = append(m.commands, r)
}

func (m *machine) summary(what string) string {
	return fmt.Sprintf("%s · stage %d/%d", what, m.Stage+1, len(m.Spec.Stages))
}
