package workflows

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

func TestOptions(t *testing.T) {
	t.Parallel()
	const unlimited = 0
	final := []string{"InvalidRollout", "OwnershipLost"}
	for kind, want := range map[rollout.TaskKind]workflow.ActivityOptions{
		rollout.TaskValidate: {StartToCloseTimeout: 30 * time.Second, ScheduleToCloseTimeout: 110 * time.Second, RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 5, NonRetryableErrorTypes: final}},
		rollout.TaskSetWeight: {StartToCloseTimeout: 30 * time.Second, ScheduleToCloseTimeout: 14 * time.Minute, RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: 15 * time.Second, MaximumAttempts: unlimited, NonRetryableErrorTypes: final}},
		rollout.TaskObserve: {StartToCloseTimeout: time.Hour + 2*time.Minute, HeartbeatTimeout: 30 * time.Second, RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 1, MaximumInterval: time.Minute, MaximumAttempts: unlimited, NonRetryableErrorTypes: final}},
		rollout.TaskRestore: {StartToCloseTimeout: 30 * time.Second, RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second / 2, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: unlimited, NonRetryableErrorTypes: final}},
		rollout.TaskFinalize: {StartToCloseTimeout: 30 * time.Second, RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: unlimited, NonRetryableErrorTypes: final}},
	} {
		want.Summary = "what it does"
		run := rollout.Run{Task: rollout.Task{Kind: kind}, Summary: "what it does", Observe: &rollout.ObserveRequest{Slice: rollout.Duration(time.Hour)}}
		if d := cmp.Diff(want, options(run)); d != "" {
			t.Errorf("%s (-want +got):\n%s", kind, d)
		}
	}
}

func TestClassify(t *testing.T) {
	t.Parallel()
	app := temporal.NewApplicationError("no route\nto host", "DriverError")
	for name, row := range map[string]struct {
		err          error
		kind, reason string
	}{
		"application":   {app, "DriverError", "no route to host"},
		"timeout":       {temporal.NewTimeoutError(enums.TIMEOUT_TYPE_START_TO_CLOSE, nil), "", "no answer in time"},
		"timeout after": {temporal.NewTimeoutError(enums.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, app), "DriverError", "no answer in time, at last: no route to host"},
		"other":         {errors.New("odd"), "", "odd"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if kind, reason := classify(row.err); kind != row.kind || reason != row.reason {
				t.Errorf("%q, %q", kind, reason)
			}
		})
	}
}

func TestStartOptions(t *testing.T) {
	t.Parallel()
	got := StartOptions(spec())
	if got.ID != "canary/support-agent" || got.TaskQueue != "aviary" || got.StaticSummary != "support-agent: v41 → v42" {
		t.Errorf("%+v", got)
	}
	if got.WorkflowIDConflictPolicy != enums.WORKFLOW_ID_CONFLICT_POLICY_FAIL || !got.WorkflowExecutionErrorWhenAlreadyStarted ||
		got.WorkflowIDReusePolicy != enums.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE {
		t.Errorf("a second rollout of the agent would not be refused: %+v", got)
	}
	if got.WorkflowExecutionTimeout+got.WorkflowRunTimeout != 0 || got.RetryPolicy != nil || got.TypedSearchAttributes.Size() != 0 {
		t.Errorf("timeouts, retries or attributes: %+v", got)
	}
}
