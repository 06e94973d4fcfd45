package workflows

import (
	"crypto/rand"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// checkLimit bounds a whole check.
const checkLimit = 3 * time.Minute

// CheckOptions are the options that start a Check on a task queue, as often as one likes and beside rollouts.
func CheckOptions(spec rollout.Spec, queue string) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID: "check/" + spec.Agent + "/" + rand.Text(), TaskQueue: queue, WorkflowExecutionTimeout: checkLimit,
		StaticSummary: "check what " + spec.Agent + " " + spec.Canary + " would need",
	}
}

// Check looks at everything that a rollout would need, from where it would run: only a worker has the addresses, the secrets and the
// rights. It changes nothing.
func Check(ctx workflow.Context, spec rollout.Spec) ([]rollout.Remark, error) {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: 90 * time.Second, ScheduleToCloseTimeout: checkLimit,
		RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 2},
	})
	var remarks []rollout.Remark
	err := workflow.ExecuteActivity(ctx, InspectName, spec).Get(ctx, &remarks)
	return remarks, err
}
