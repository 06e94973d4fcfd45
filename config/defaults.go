package config

import (
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// DefaultTarget is the target that a rollout means when it names none.
const DefaultTarget = "default"

// defaultSpec is a rollout file's defaults.
func defaultSpec() rollout.Spec {
	return rollout.Spec{
		Criticality: rollout.Standard,
		Traffic: rollout.Traffic{
			Driver: DriverRouter, Target: DefaultTarget, Lease: rollout.Duration(2 * time.Minute), OnRollback: rollout.Evict,
		},
		Metrics: rollout.Metrics{
			Provider: ProviderRouter, Target: DefaultTarget, Interval: rollout.Duration(10 * time.Second),
			NoDataTimeout: rollout.Duration(10 * time.Minute), OnNoData: rollout.PolicyPause,
		},
		Analysis: rollout.Analysis{Method: "sequential", Alpha: 0.01, Beta: 0.05, Advance: "estimate", Floor: 0.001},
		RollbackCriteria: rollout.RollbackCriteria{
			MaxErrorIncrease: new(0.10), MaxSafetyViolations: new(0.0), MaxCompletionDrop: new(0.05), MaxLatencyIncrease: new(0.50),
		},
	}
}

// leastCriteria are the rollback criteria of a file that names some of its own: a safety violation always counts, unless the file
// says null.
func leastCriteria() rollout.RollbackCriteria {
	return rollout.RollbackCriteria{MaxSafetyViolations: new(0.0)}
}

func defaultStage() rollout.Stage {
	return rollout.Stage{
		AutoRollback: true, Approval: rollout.ApprovalNone, MaxHold: rollout.Duration(24 * time.Hour), OnHold: rollout.PolicyPause,
	}
}
