package rollout

import "slices"

// Status is the state as people see it.
func (s State) Status() Status {
	stage := s.StageNow()
	out := Status{
		Agent: s.Spec.Agent, Stable: s.Spec.Stable, Canary: s.Spec.Canary, Phase: s.Phase, Paused: s.Pause,
		Stage: stage.Name, StageIndex: s.Stage, Stages: len(s.Spec.Stages), Weight: s.Weight, Mirror: s.Mirror,
		Started: s.Started, Ended: s.Ended, Observed: s.Observed, Duration: stage.Duration, Hold: s.HoldSince,
		Requests: s.Requests, MinRequests: stage.MinRequests, Verdict: s.Verdict, Evidence: slices.Clone(s.Evidence),
		Frozen: s.Frozen, SourceDown: s.SourceDown, Mismatch: s.Mismatch, PlaneDown: s.PlaneDown, Violation: s.Violation,
		Outcome: s.Outcome, Reason: s.Reason, Owner: s.Owner,
	}
	if n := len(s.Decisions); n > 0 {
		last := s.Decisions[n-1]
		out.Last = &last
	}
	return out
}
