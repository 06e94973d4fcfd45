// Package workflows holds Aviary's Temporal workflows: Canary carries out what rollout.Step decides, Sweep gives traffic back
// that nobody owns any more, Check looks at what a rollout would need.
package workflows

import (
	"fmt"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// TaskQueue is where Aviary's workers listen.
const TaskQueue = "aviary"

// Wire names. They never change: running rollouts and their histories hold them.
const (
	CanaryName = "Canary"
	SweepName  = "Sweep"
	CheckName  = "Check"

	NotifyName  = "Notify"
	OrphansName = "Orphans"
	InspectName = "Inspect"
)

// Queries of Canary.
const (
	QueryStatus    = "status"    // rollout.Status
	QueryDecisions = "decisions" // []rollout.Decision, oldest first
	QuerySeries    = "series"    // []rollout.Point, oldest first
)

// Memo keys of a rollout.
const (
	MemoAgent  = "agent"
	MemoStable = "stable"
	MemoCanary = "canary"
	MemoPhase  = "phase"
	MemoStage  = "stage"  // its name
	MemoWeight = "weight" // a fraction, 0 to 1
)

// WorkflowID is the ID of an agent's rollout. It is what keeps two rollouts of one agent apart.
func WorkflowID(agent string) string { return "canary/" + agent }

// StartOptions are the options that start a rollout: a second one of the same agent is refused while the first runs. They set
// no search attributes, because a namespace that does not know them refuses the start; Canary sets them where it may.
func StartOptions(spec rollout.Spec) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID:                                       WorkflowID(spec.Agent),
		TaskQueue:                                TaskQueue,
		WorkflowIDConflictPolicy:                 enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowIDReusePolicy:                    enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
		Memo: map[string]any{
			MemoAgent: spec.Agent, MemoStable: spec.Stable, MemoCanary: spec.Canary, MemoPhase: rollout.Validating,
		},
		StaticSummary: fmt.Sprintf("%s: %s → %s", spec.Agent, spec.Stable, spec.Canary),
	}
}

// Register makes the workflows known to a worker under their wire names. Behavior is what worker versioning does with
// rollouts in flight; an unversioned worker wants workflow.VersioningBehaviorUnspecified.
func Register(registry worker.WorkflowRegistry, behavior workflow.VersioningBehavior) {
	registry.RegisterWorkflowWithOptions(Canary, workflow.RegisterOptions{Name: CanaryName, VersioningBehavior: behavior})
	registry.RegisterWorkflowWithOptions(Sweep, workflow.RegisterOptions{Name: SweepName, VersioningBehavior: behavior})
	registry.RegisterWorkflowWithOptions(Check, workflow.RegisterOptions{Name: CheckName, VersioningBehavior: behavior})
}
