package rollout

import "time"

// New is a rollout that has not begun: Step it with Begin.
func New(spec Spec, owner string, now time.Time) State {
	return State{Version: StateVersion, Spec: spec, Owner: owner, Phase: Validating, Started: now, NextTask: 1}
}
