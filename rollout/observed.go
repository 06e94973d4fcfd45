package rollout

import (
	"fmt"
	"slices"
	"time"
)

// observed takes in one slice of watching and decides.
func (m *machine) observed(r ObserveResult) {
	m.take(r)
	switch r.Finding {
	case FoundSafety:
		m.takeBackAtOnce(Aviary, r.Reason, r.Evidence)
		return
	case FoundViolation:
		if m.StageNow().AutoRollback {
			m.takeBack(RolledBack, Aviary, r.Reason, r.Evidence)
			return
		}
		m.Violation = r.Reason
		m.pauseItself(r.Reason, r.Evidence)
	case FoundNoData:
		if m.Spec.Metrics.OnNoData == PolicyRollback {
			m.takeBack(RolledBack, Aviary, r.Reason, r.Evidence)
			return
		}
		if m.Pause == nil { // it is found again and again while nobody comes
			m.pauseItself(r.Reason, nil)
		}
	case FoundDrift:
		m.Drift = r.Reason
		m.pauseItself(r.Reason, nil)
	case FoundLost:
		m.takeBack(RolledBack, Aviary, r.Reason, nil)
		return
	}
	m.noticeChanges(r)
	m.judge(r)
}

// take adds what the slice saw. Only time that was watched, and not paused, counts for the stage.
func (m *machine) take(r ObserveResult) {
	m.Cursor = r.Cursor
	m.Requests, m.Total = m.Requests.Add(r.Requests), m.Total.Add(r.Requests).Add(r.Before)
	if r.Verdict != "" {
		m.Verdict, m.Evidence = r.Verdict, r.Evidence
	}
	m.Series = thin(append(slices.Clone(m.Series), r.Series...))
	if m.Phase != Observing {
		return
	}
	paused := m.last.PausedIn
	if m.Pause != nil {
		paused += Duration(m.now.Sub(later(m.Pause.Since, m.last.Started)))
	}
	elapsed := Duration(m.now.Sub(m.last.Started))
	m.Observed += max(0, min(r.Observed, elapsed)-paused)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// thin keeps the series bounded: once too long, every second point of the older half goes.
func thin(ps []Point) []Point {
	for len(ps) > MaxPoints {
		half := len(ps) / 2
		out := make([]Point, 0, len(ps))
		for i, p := range ps {
			if i >= half || i%2 == 0 {
				out = append(out, p)
			}
		}
		ps = out
	}
	return ps
}

// noticeChanges tells of what began or ended outside the verdict.
func (m *machine) noticeChanges(r ObserveResult) {
	if (r.SourceDown == "") != (m.SourceDown == "") {
		if r.SourceDown != "" {
			m.decide(DecideSource, Aviary, "the metrics source does not answer, nothing advances: "+r.SourceDown, nil, Warn)
		} else {
			m.decide(DecideSource, Aviary, "the metrics source answers again", nil, Info)
		}
	}
	if (r.PlaneDown == "") != (m.PlaneDown == "") {
		if r.PlaneDown != "" {
			m.decide(DecidePlane, Aviary, "the data plane does not answer, the lease may run out: "+r.PlaneDown, nil, Alert)
		} else {
			m.decide(DecidePlane, Aviary, "the data plane answers again", nil, Info)
		}
	}
	if (r.Frozen == "") != (m.Frozen == "") {
		if r.Frozen != "" {
			m.decide(DecideFreeze, Aviary, "both versions are bad at once, nothing is judged: "+r.Frozen, nil, Warn)
		} else {
			m.decide(DecideThaw, Aviary, "judging again", nil, Info)
		}
	}
	if (r.Mismatch == "") != (m.Mismatch == "") {
		if r.Mismatch != "" {
			m.decide(DecideMismatch, Aviary, "the comparison is in doubt, nothing advances: "+r.Mismatch, nil, Warn)
		} else {
			m.decide(DecideMismatch, Aviary, "the comparison is no longer in doubt", nil, Info)
		}
	}
	if r.PutBack != "" {
		m.decide(DecideDrift, Aviary, "somebody else changed the weights, they were put back: "+r.PutBack, nil, Warn)
	}
	m.SourceDown, m.PlaneDown, m.Frozen, m.Mismatch = r.SourceDown, r.PlaneDown, r.Frozen, r.Mismatch
}

// pauseItself pauses for a human. An earlier pause stays as it is, and the humans are told all the same.
func (m *machine) pauseItself(reason string, evidence []Evidence) {
	if m.Pause == nil {
		m.Pause = &Pause{By: Aviary, Reason: reason, Since: m.now}
	}
	m.decide(DecidePause, Aviary, reason, evidence, Alert)
}

// judge advances, holds or watches on.
func (m *machine) judge(r ObserveResult) {
	stage := m.StageNow()
	if m.Phase != Observing || m.Pause != nil || m.Observed < stage.Duration {
		m.observe()
		return
	}
	if why := m.blocker(r); why != "" {
		m.hold(why, r)
		return
	}
	if stage.Approval == ApprovalRequired && m.Approved == "" {
		m.Phase = AwaitingApproval
		m.decide(DecideApproval, Aviary, "the stage is passed and waits for a human's approval", r.Evidence, Warn)
		m.observe()
		return
	}
	m.advance(Aviary, "the stage is passed")
}

// blocker says what keeps a stage whose time is over from being passed. It is empty when nothing does.
func (m *machine) blocker(r ObserveResult) string {
	stage := m.StageNow()
	need := max(1, stage.MinRequests)
	switch {
	case m.Frozen != "":
		return "frozen: " + m.Frozen
	case m.SourceDown != "":
		return "the metrics source does not answer"
	case m.PlaneDown != "":
		return "the data plane does not answer"
	case m.Mismatch != "":
		return "the comparison is in doubt: " + m.Mismatch
	case r.Settling+r.Settles > 0:
		return fmt.Sprintf("the canary settles for another %s after the change of its weight", r.Settling+r.Settles)
	case m.Requests.Canary < float64(need):
		return fmt.Sprintf("%.0f of at least %d canary requests", m.Requests.Canary, need)
	case r.Gate == Met:
		return ""
	case r.Gate == NoData:
		return "a check has no data"
	case r.Gate == Violated:
		return "violated: " + m.Violation
	}
	return "the evidence does not decide yet"
}

// hold lets a stage overstay, up to its max_hold. That is time to decide in, so it begins once there is something to decide by.
func (m *machine) hold(why string, r ObserveResult) {
	evidence := r.Evidence
	if m.HoldSince.IsZero() {
		m.decide(DecideHold, Aviary, why, evidence, Info)
	}
	if m.HoldSince.IsZero() || r.Settling > 0 {
		m.HoldSince = m.now.Add(r.Settling.Std())
	}
	if limit := m.StageNow().MaxHold; !m.now.Before(m.holdDeadline()) {
		reason := fmt.Sprintf("held for %s without a decision: %s", limit, why)
		if m.StageNow().OnHold == PolicyRollback {
			m.takeBack(RolledBack, Aviary, reason, evidence)
			return
		}
		m.pauseItself(reason, evidence)
	}
	m.observe()
}

// advance goes to the next stage, or to the promotion after the last one.
func (m *machine) advance(by, reason string) {
	m.decide(DecideAdvance, by, reason, m.Evidence, "")
	if m.Stage+1 < len(m.Spec.Stages) {
		m.Stage++
		m.shift()
		return
	}
	m.promoteNow()
}

func (m *machine) promoteNow() {
	m.Phase = Promoting
	m.Revision++
	m.finalize()
	m.decide(DecidePromote, Aviary, "making "+m.Spec.Canary+" the stable version", nil, "")
}
