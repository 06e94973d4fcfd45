package rollout

import "fmt"

// Refusal says why a signal would have no effect in this state. It is empty when it would have one.
func (s State) Refusal(signal Signal, ask Ask) string {
	if s.Phase.Terminal() {
		return fmt.Sprintf("the rollout has ended: %s", s.Phase)
	}
	restoring := s.Phase == Restoring || s.Phase == RestoreBlocked
	switch signal {
	case SignalRetry:
		if s.Phase != RestoreBlocked {
			return fmt.Sprintf("nothing to retry in phase %s; retry is for restore_blocked", s.Phase)
		}
		return ""
	case SignalAbort, SignalViolation:
		if restoring {
			return "already restoring stable"
		}
		return ""
	}
	if restoring {
		return "stable is being restored"
	}
	switch signal {
	case SignalPause:
		if s.Phase == Promoting {
			return "too late to pause, the canary is being promoted; abort still works"
		}
		if s.Pause != nil && s.Pause.By != Aviary {
			return "already paused by " + s.Pause.By
		}
	case SignalResume:
		if s.Pause == nil {
			return "not paused"
		}
	case SignalApprove:
		if s.Phase != AwaitingApproval {
			return fmt.Sprintf("nothing to approve in phase %s; a stage asks for approval at its end", s.Phase)
		}
		if trouble := s.trouble(); trouble != "" {
			return trouble + ", so there is nothing to approve by; promote goes on all the same"
		}
	case SignalPromote:
		if s.Phase == Validating || s.Phase == Promoting {
			return fmt.Sprintf("can't promote in phase %s", s.Phase)
		}
		if s.Phase == Shifting && !ask.Full {
			return "the stage has only begun to shift; a full promotion skips all stages"
		}
	default:
		return fmt.Sprintf("unknown signal %q", string(signal))
	}
	return ""
}

// trouble says what keeps the numbers from being believed now. It is empty when nothing does.
func (s State) trouble() string {
	switch {
	case s.Frozen != "":
		return "frozen: " + s.Frozen
	case s.SourceDown != "":
		return "the metrics source does not answer"
	case s.PlaneDown != "":
		return "the data plane does not answer"
	case s.Mismatch != "":
		return "the comparison is in doubt: " + s.Mismatch
	}
	return ""
}

func (m *machine) asked(signal Signal, ask Ask) {
	by := ask.By
	if by == "" {
		by = "a human"
	}
	if why := m.Refusal(signal, ask); why != "" {
		m.decide(DecideIgnore, by, fmt.Sprintf("%s: %s", signal, why), nil, "")
		return
	}
	switch signal {
	case SignalAbort:
		m.takeBack(Aborted, by, because("aborted by "+by, ask.Reason), nil)
	case SignalViolation:
		m.takeBackAtOnce(by, because("a safety violation was reported by "+by, ask.Reason), nil)
	case SignalRetry:
		m.restore()
		m.decide(DecideRetry, by, because("restoring again at once", ask.Reason), nil, "")
	case SignalPause:
		m.pauseByHuman(by, ask.Reason)
	case SignalResume:
		m.resume(by, ask.Reason)
	case SignalApprove:
		m.Approved = by
		m.decide(DecideApprove, by, because("approved by "+by, ask.Reason), m.Evidence, Info)
		if m.Pause == nil {
			m.advance(by, "approved by "+by)
		}
	case SignalPromote:
		m.promote(by, ask)
	}
}

func because(what, reason string) string {
	if reason == "" {
		return what
	}
	return what + ": " + reason
}

// pauseByHuman pauses, or takes a pause of Aviary's own over.
func (m *machine) pauseByHuman(by, reason string) {
	since := m.now
	if m.Pause != nil {
		since = m.Pause.Since
	}
	m.Pause = &Pause{By: by, Reason: reason, Since: since}
	m.decide(DecidePause, by, because("paused by "+by, reason), nil, Info)
}

// lift ends a pause and remembers how much of the slice in flight it took.
func (m *machine) lift() {
	if m.Pause == nil {
		return
	}
	if !m.Task.None() && !m.Task.Paused {
		m.Task.PausedIn += Duration(m.now.Sub(later(m.Pause.Since, m.Task.Started)))
	}
	m.Pause, m.Drift = nil, ""
	if !m.HoldSince.IsZero() {
		m.HoldSince = later(m.HoldSince, m.now) // a fresh max_hold
	}
}

func (m *machine) resume(by, reason string) {
	m.lift()
	m.decide(DecideResume, by, because("resumed by "+by, reason), nil, Info)
	switch {
	case m.Phase == AwaitingApproval && m.Approved != "" && m.trouble() == "":
		m.advance(m.Approved, "approved by "+m.Approved)
	case m.Task.None(): // validated while paused
		m.proceed()
	case m.Task.Kind == TaskObserve && m.Task.Paused:
		m.observe() // the slice in flight does not look for the gate; its cursor has not moved, so nothing is lost
	}
}

// promote lets a human end the stage, or all of them, early. It lifts a pause.
func (m *machine) promote(by string, ask Ask) {
	m.lift()
	if ask.Full {
		m.decide(DecidePromote, by, because("promoted to all traffic by "+by, ask.Reason), m.Evidence, Warn)
		m.promoteNow()
		return
	}
	m.decide(DecidePromote, by, because("stage ended early by "+by, ask.Reason), m.Evidence, Warn)
	m.advance(by, "promoted by "+by)
}
