package rollout

import (
	"fmt"
	"slices"
	"time"
)

// Aviary is who made a decision that no human made.
const Aviary = "aviary"

// New is a rollout that has not begun: Step it with Begin.
func New(spec Spec, owner string, now time.Time) State {
	return State{Version: StateVersion, Spec: spec, Owner: owner, Phase: Validating, Started: now}
}

// Step decides what an event means for a rollout. It is pure and total: every event is defined in every phase, the State
// passed in is not changed, and the same arguments give the same answer. The commands are to be carried out in order.
func Step(s State, e Event, now time.Time) (State, []Command) {
	if s.Phase.Terminal() {
		return s, nil
	}
	m := &machine{State: s, now: now}
	switch e := e.(type) {
	case Begin:
		m.begin()
	case Asked:
		m.asked(e.Signal, e.Ask)
	case CancelRequested:
		m.takeBack(Canceled, "a human", "the workflow was canceled", nil)
	case Broken:
		m.takeBack(RolledBack, Aviary, "an error inside Aviary: "+e.Reason, nil)
	case Tick:
		m.tick()
	case TaskDone:
		if m.ended(e.ID) {
			m.done(e)
		}
	case TaskFailed:
		if m.ended(e.ID) {
			m.failed(e)
		}
	}
	return m.State, m.commands
}

// machine is one step being taken.
type machine struct {
	State
	now      time.Time
	commands []Command
	last     Task // the task whose end this step is about
}

// ended takes the task in flight down if it is the one with this id. A stale end changes nothing.
func (m *machine) ended(id int64) bool {
	if m.Task.None() || m.Task.ID != id {
		return false
	}
	m.last, m.Task, m.Wake = m.Task, Task{}, time.Time{}
	return true
}

func (m *machine) begin() {
	if m.NextTask == 0 {
		m.decide(DecideStart, Aviary, fmt.Sprintf("bring %s to %s, now on %s", m.Spec.Canary, m.Spec.Agent, m.Spec.Stable), nil, Info)
	}
	m.proceed()
}

// proceed runs the task that the phase calls for. It is what a carried State wakes up with.
func (m *machine) proceed() {
	switch m.Phase {
	case Validating:
		switch {
		case !m.Valid:
			m.validate()
		case m.Pause == nil:
			m.shift()
		}
	case Shifting:
		m.setWeight()
	case Observing, AwaitingApproval:
		m.observe()
	case Promoting:
		m.finalize()
	case Restoring, RestoreBlocked:
		m.restore()
	}
}

func (m *machine) done(e TaskDone) {
	switch m.last.Kind {
	case TaskValidate:
		m.Valid, m.Cursor = true, e.Cursor
		m.proceed()
	case TaskSetWeight:
		m.shifted()
	case TaskObserve:
		if e.Observed == nil {
			m.takeBack(RolledBack, Aviary, "an error inside Aviary: Observe ended without a result", nil)
			return
		}
		m.observed(*e.Observed)
	case TaskFinalize:
		m.Weight, m.Mirror = FullWeight, 0
		m.end(Promoted, fmt.Sprintf("%s passed every stage and is the stable version now", m.Spec.Canary), Info)
	case TaskRestore:
		m.Weight, m.Mirror = 0, 0
		m.end(m.Outcome, m.Reason, Warn)
	}
}

func (m *machine) failed(e TaskFailed) {
	switch m.last.Kind {
	case TaskValidate:
		m.end(Rejected, e.Reason, Warn)
	case TaskSetWeight:
		m.takeBack(RolledBack, Aviary, fmt.Sprintf("the weight could not be set to %s: %s", m.StageNow().Share(), e.Reason), nil)
	case TaskObserve:
		m.takeBack(RolledBack, Aviary, "watching the canary ended: "+e.Reason, nil)
	case TaskFinalize:
		m.takeBack(RolledBack, Aviary, "the promotion was refused: "+e.Reason, nil)
	case TaskRestore:
		m.restoreFailed(e)
	}
}

func (m *machine) restoreFailed(e TaskFailed) {
	switch {
	case e.Type == ErrOwnershipLost:
		m.Weight, m.Mirror = 0, 0
		m.end(m.Outcome, fmt.Sprintf("%s; nothing was left to restore: %s", m.Reason, e.Reason), Warn)
	case !m.Moved && e.Type == ErrInvalidRollout:
		m.end(m.Outcome, m.Reason, Warn)
	default:
		wait := BlockedRetry // a long wait keeps the history small while nobody comes
		if m.now.Sub(m.Restoring) < BlockedRetry {
			wait = RestoreRetry
		}
		m.block(e.Reason)
		m.Wake = m.now.Add(wait)
	}
}

// block parks the rollout where people see it. The restore goes on being tried.
func (m *machine) block(reason string) {
	if m.Phase == RestoreBlocked {
		return
	}
	m.Phase = RestoreBlocked
	m.decide(DecideBlocked, Aviary, "stable could not be restored yet, trying on: "+reason, nil, Alert)
}

// tick comes when the task in flight should long have ended: an operator paused it, or it is retried without end.
func (m *machine) tick() {
	if m.Wake.IsZero() || m.now.Before(m.Wake) {
		return
	}
	switch {
	case m.Phase == Restoring:
		m.block("no answer within " + Duration(ParkAfter).String())
		m.Wake = m.now.Add(BlockedRetry) // the restore in flight goes on
	case m.Phase == RestoreBlocked:
		m.restore()
	case m.Task.Kind == TaskValidate:
		m.Task = Task{}
		m.end(Rejected, "the rollout could not be validated within "+Duration(ValidateLimit).String(), Warn)
	case m.Task.Kind == TaskSetWeight:
		m.takeBack(RolledBack, Aviary, fmt.Sprintf("the weight could not be set to %s within %s", m.StageNow().Share(), Duration(ShiftLimit)), nil)
	case !m.Task.None():
		m.decide(DecideOverdue, Aviary, fmt.Sprintf("%s did not report in time and is started anew", m.Task.Kind), nil, Warn)
		m.proceed()
	}
}

// takeBack begins to restore stable. Every bad end comes this way, and the first one names the outcome.
func (m *machine) takeBack(outcome Phase, by, reason string, evidence []Evidence) {
	if m.Phase == Restoring || m.Phase == RestoreBlocked {
		m.decide(DecideIgnore, by, "already restoring stable: "+reason, nil, "")
		return
	}
	m.Phase, m.Outcome, m.Reason, m.Restoring, m.Pause = Restoring, outcome, reason, m.now, nil
	m.Revision++
	m.restore()
	m.decide(DecideRollback, by, reason, evidence, Alert)
}

// takeBackAtOnce is takeBack for a safety violation: no conversation may finish on the canary, not even where they are drained.
func (m *machine) takeBackAtOnce(by, reason string, evidence []Evidence) {
	m.Unsafe = true
	m.takeBack(RolledBack, by, reason, evidence)
}

func (m *machine) end(phase Phase, reason string, urgency Urgency) {
	m.Phase, m.Outcome, m.Reason, m.Ended, m.Pause, m.Wake = phase, phase, reason, m.now, nil, time.Time{}
	m.decide(DecideEnd, Aviary, reason, nil, urgency)
	m.commands = append(m.commands, Finish{})
}

// decide records a decision and, unless urgency is empty, tells the humans.
func (m *machine) decide(kind DecisionKind, by, reason string, evidence []Evidence, urgency Urgency) {
	d := Decision{
		At: m.now, Kind: kind, Phase: m.Phase, Stage: m.StageNow().Name, Weight: m.Weight,
		By: by, Reason: reason, Evidence: evidence,
	}
	m.Decisions = keep(append(slices.Clone(m.Decisions), d))
	if urgency == "" {
		return
	}
	m.NextNotice++
	status := m.Status()
	status.Last = nil // it is the decision
	m.commands = append(m.commands, Tell{Notice{
		ID: fmt.Sprintf("%s/%d", m.Owner, m.NextNotice), Owner: m.Owner, Notify: m.Spec.Notify,
		Agent: m.Spec.Agent, Stable: m.Spec.Stable, Canary: m.Spec.Canary,
		Urgency: urgency, Decision: d, Status: status,
	}})
}

// keep bounds the decisions: the oldest go first, and older ones lose their evidence.
func keep(ds []Decision) []Decision {
	if len(ds) > MaxDecisions {
		ds = ds[len(ds)-MaxDecisions:]
	}
	if old := len(ds) - MaxEvidence; old > 0 && ds[old-1].Evidence != nil {
		ds[old-1].Evidence = nil
	}
	return ds
}
