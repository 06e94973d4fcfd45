package workflows

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Timeouts of one try, and of all of them together.
const (
	tryTimeout       = 30 * time.Second
	heartbeatTimeout = 30 * time.Second
	// Each total ends before Step's own limit, so that Step hears of the last fault and not only that time is up.
	validateTotal = rollout.ValidateLimit - 10*time.Second
	shiftTotal    = rollout.ShiftLimit - time.Minute
	// sliceMargin is for what a slice does besides watching: the first poll, the last one, and their retries.
	sliceMargin = rollout.SliceGrace - time.Minute
)

// flight is the activity in flight.
type flight struct {
	id     int64
	kind   rollout.TaskKind
	future workflow.Future
	cancel workflow.CancelFunc
}

// begin starts a task in place of the one in flight. The end of a slice is where a long history is left behind: the next slice
// is held back then, and moveOn decides.
func (c *canary) begin(run rollout.Run) {
	c.land()
	c.held = nil
	if run.Observe != nil && c.moveOnWanted() {
		c.held = &run
		return
	}
	c.start(run)
}

func (c *canary) start(run rollout.Run) {
	ctx, cancel := workflow.WithCancel(workflow.WithActivityOptions(c.ctx, options(run)))
	c.task = &flight{
		id: run.Task.ID, kind: run.Task.Kind, cancel: cancel,
		future: workflow.ExecuteActivity(ctx, string(run.Task.Kind), argument(run)),
	}
}

// land abandons the task in flight. It does not wait: the data plane refuses what an orphan still tries.
func (c *canary) land() {
	if c.task != nil {
		c.task.cancel()
		c.task = nil
	}
}

func argument(run rollout.Run) any {
	switch {
	case run.Observe != nil:
		return *run.Observe
	case run.Spec != nil:
		return *run.Spec
	case run.Route != nil:
		return *run.Route
	}
	return nil
}

// options are how a task is tried.
func options(run rollout.Run) workflow.ActivityOptions {
	out := workflow.ActivityOptions{
		StartToCloseTimeout: tryTimeout,
		Summary:             run.Summary,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute,
			NonRetryableErrorTypes: []string{rollout.ErrInvalidRollout, rollout.ErrOwnershipLost},
		},
	}
	switch run.Task.Kind {
	case rollout.TaskValidate:
		out.ScheduleToCloseTimeout = validateTotal
		out.RetryPolicy.MaximumAttempts = 5
	case rollout.TaskSetWeight:
		out.ScheduleToCloseTimeout = shiftTotal
		out.RetryPolicy.MaximumInterval = 15 * time.Second
	case rollout.TaskObserve:
		out.StartToCloseTimeout = run.Observe.Slice.Std() + sliceMargin
		out.HeartbeatTimeout = heartbeatTimeout
		out.RetryPolicy.BackoffCoefficient = 1
	case rollout.TaskRestore:
		out.RetryPolicy.InitialInterval = 500 * time.Millisecond
	}
	return out
}

// validated is the answer of Validate.
type validated struct {
	SearchAttributes bool            `json:"search_attributes"` // the namespace knows Aviary's search attributes
	Cursor           json.RawMessage `json:"cursor,omitempty"`  // for the first Observe
}

// takeTask applies the end of the task in flight. An answer that can't be read is an error inside Aviary.
func (c *canary) takeTask() error {
	if c.task == nil || !c.task.future.IsReady() {
		return nil
	}
	task := c.task
	c.land()
	done := rollout.TaskDone{ID: task.id}
	var err error
	switch task.kind {
	case rollout.TaskObserve:
		done.Observed = &rollout.ObserveResult{}
		err = task.future.Get(c.ctx, done.Observed)
		c.watched = true
	case rollout.TaskValidate:
		var result validated
		if err = task.future.Get(c.ctx, &result); err == nil {
			c.attributes, done.Cursor = result.SearchAttributes, result.Cursor
		}
	default:
		err = task.future.Get(c.ctx, nil)
	}
	var refused *temporal.ActivityError
	switch {
	case err == nil:
		c.apply(done)
	case errors.As(err, &refused):
		kind, reason := classify(err)
		c.apply(rollout.TaskFailed{ID: task.id, Type: kind, Reason: reason})
	default:
		return fmt.Errorf("%s: %w", task.kind, err)
	}
	return nil
}

// classify takes an activity's error apart: the type on the wire, if it has one, and one sentence without the wrapping.
func classify(err error) (kind, reason string) {
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	switch {
	case errors.As(err, &timeout):
		reason = "no answer in time"
		if errors.As(timeout.Unwrap(), &app) {
			kind, reason = app.Type(), reason+", at last: "+app.Message()
		}
	case errors.As(err, &app):
		kind, reason = app.Type(), app.Message()
	default:
		reason = err.Error()
	}
	return kind, line(reason, maxReason)
}
