package rollout_test

import (
	"testing"

	. "github.com/aviary-rollouts/aviary/rollout"
)

// TestNothingDrainsAfterASafetyViolation: conversations may finish on a canary that is slow or wrong, not on one that does harm.
func TestNothingDrainsAfterASafetyViolation(t *testing.T) {
	t.Parallel()
	found := func(f Finding) func(State) Event {
		return func(s State) Event {
			return TaskDone{ID: s.Task.ID, Observed: &ObserveResult{Finding: f, Reason: "why"}}
		}
	}
	ask := func(signal Signal) func(State) Event {
		return func(State) Event { return Asked{signal, Ask{By: "ann"}} }
	}
	for name, tc := range map[string]struct {
		policy OnRollback
		event  func(State) Event
		want   OnRollback
	}{
		"a safety violation":        {Drain, found(FoundSafety), Evict},
		"a reported one":            {Drain, ask(SignalViolation), Evict},
		"a violation":               {Drain, found(FoundViolation), Drain},
		"an abort":                  {Drain, ask(SignalAbort), Drain},
		"a safety violation, kill":  {Kill, found(FoundSafety), Kill},
		"a safety violation, evict": {Evict, found(FoundSafety), Evict},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, at := observing(t, func(spec *Spec) { spec.Traffic.OnRollback = tc.policy })
			s, commands := Step(s, tc.event(s), at)
			var got *Route
			for _, c := range commands {
				if r, ok := c.(Run); ok && r.Task.Kind == TaskRestore {
					got = r.Route
				}
			}
			if got == nil || got.OnRollback != tc.want || !got.Rollback {
				t.Fatalf("phase %s, route %+v, want a rollback with %s", s.Phase, got, tc.want)
			}
		})
	}
}
