//go:build record

package workflows

import (
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// sharing are scenarios of a canary whose share of traffic is not its weight for a while, and of the settings that the statistics alone read.
func sharing() map[string]script {
	return map[string]script{
		"mismatch": {
			spec: func(s *rollout.Spec) {
				s.Stages[0].Approval = rollout.ApprovalRequired
				s.Analysis.Advance, s.Analysis.Settle = "ladder", new(rollout.Duration(500*time.Millisecond))
				s.Analysis.Overdispersion, s.Analysis.CohortSpread = map[string]float64{"error_rate": 9.3}, map[string]float64{"error_rate": 0.05}
			},
			observe: func(r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
				result, d := healthy(time.Now(), r)
				switch {
				case r.Stage == 0 && r.Gate && r.Remaining > 0: // it begins
					result.Finding, result.Mismatch = rollout.FoundMismatch, "the canary got 1 % of about 900 new conversations lately at a weight of 5 %"
				case r.Mismatch != "" && r.Gate: // it ends, while the stage is held
					result.Finding = rollout.FoundMismatch
				}
				return result, min(d, time.Second)
			},
			drive: func(p *people) {
				p.await(rollout.AwaitingApproval)
				p.update(rollout.SignalApprove, rollout.Ask{By: "ada"})
			},
		},
	}
}
