package workflows

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// SweepID is the ID of the schedule that sweeps.
const SweepID = "aviary-sweep"

// Swept is what a sweep did.
type Swept struct {
	Restored []rollout.Route `json:"restored,omitempty"`
	Left     []Left          `json:"left,omitempty"` // for the next sweep
}

// Left is an orphan that could not be restored yet.
type Left struct {
	Route  rollout.Route `json:"route"`
	Reason string        `json:"reason"`
}

// Sweep gives traffic back that a rollout left on a canary without ending by itself: somebody terminated it. What can't be
// restored now is left for the next sweep.
func Sweep(ctx workflow.Context) (Swept, error) {
	listing := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		StartToCloseTimeout: time.Minute,
		RetryPolicy:         &temporal.RetryPolicy{InitialInterval: time.Second, BackoffCoefficient: 2, MaximumAttempts: 3},
		Summary:             "canaries without an owner",
	})
	var orphans []rollout.Route
	if err := workflow.ExecuteActivity(listing, OrphansName).Get(ctx, &orphans); err != nil {
		return Swept{}, err
	}
	futures := make([]workflow.Future, len(orphans))
	for i, route := range orphans {
		restoring := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout: tryTimeout,
			RetryPolicy: &temporal.RetryPolicy{
				InitialInterval: time.Second, BackoffCoefficient: 2, MaximumAttempts: 4,
				NonRetryableErrorTypes: []string{rollout.ErrInvalidRollout, rollout.ErrOwnershipLost},
			},
			Summary: fmt.Sprintf("restore %s of %s", route.Stable, route.Agent),
		})
		futures[i] = workflow.ExecuteActivity(restoring, string(rollout.TaskRestore), route)
	}
	var swept Swept
	for i, future := range futures {
		err := future.Get(ctx, nil)
		switch {
		case ctx.Err() != nil:
			return swept, ctx.Err()
		case err != nil:
			_, reason := classify(err)
			swept.Left = append(swept.Left, Left{Route: orphans[i], Reason: reason})
		default:
			swept.Restored = append(swept.Restored, orphans[i])
		}
	}
	return swept, nil
}

// sweepLimit ends a sweep that is stuck, since the next ones wait for it.
const sweepLimit = 10 * time.Minute

// EnsureSweep creates the schedule that sweeps on a task queue, or brings an existing one up to date. A schedule that somebody paused stays
// paused. It refuses an interval below a second.
func EnsureSweep(ctx context.Context, c client.Client, queue string, every time.Duration) error {
	if every < time.Second {
		return fmt.Errorf("sweep every %s: want at least 1s", every)
	}
	spec := client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: every}}}
	action := &client.ScheduleWorkflowAction{ID: SweepID, Workflow: SweepName, TaskQueue: queue, WorkflowRunTimeout: sweepLimit}
	_, err := c.ScheduleClient().Create(ctx, client.ScheduleOptions{
		ID: SweepID, Spec: spec, Action: action, Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchup(every),
	})
	if err == nil {
		return nil
	}
	if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
		return fmt.Errorf("create schedule %s: %w", SweepID, err)
	}
	err = c.ScheduleClient().GetHandle(ctx, SweepID).Update(ctx, client.ScheduleUpdateOptions{
		DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
			schedule := in.Description.Schedule
			schedule.Spec, schedule.Action = &spec, action
			schedule.Policy = &client.SchedulePolicies{Overlap: enums.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchup(every)}
			return &client.ScheduleUpdate{Schedule: &schedule}, nil
		},
	})
	if err != nil {
		return fmt.Errorf("update schedule %s: %w", SweepID, err)
	}
	return nil
}

// catchup is how late a sweep may start: missed ones are not made up for, one is enough. The server wants at least 10 s.
func catchup(every time.Duration) time.Duration { return max(every, 10*time.Second) }
