package workflows

import (
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Canary is the workflow of one rollout. Its input is a rollout.Spec as JSON; carried is set only by itself, at continue-as-new.
//
// It completes with the last Status when the rollout was promoted, rolled back or aborted, is canceled when it was canceled,
// and fails with InvalidRollout when it was refused. All three come only after the data plane has confirmed where traffic goes.
func Canary(ctx workflow.Context, input, carried converter.RawValue) (rollout.Status, error) {
	c, invalid := newCanary(ctx, input, carried)
	if err := c.handle(ctx); err != nil {
		return rollout.Status{}, err
	}
	if invalid != nil {
		return rollout.Status{}, temporal.NewNonRetryableApplicationError(invalid.Error(), rollout.ErrInvalidRollout, nil)
	}
	workflow.GoNamed(c.ctx, "notices", c.notices.send)
	c.apply(rollout.Begin{})
	// Not in a defer: the eviction of a cached workflow runs deferred code too.
	for {
		err := c.run()
		if workflow.IsContinueAsNewError(err) {
			return c.state.Status(), err
		}
		if err == nil {
			break
		}
		c.log.Error("broken, taking the canary back", "error", err)
		c.apply(rollout.Broken{Reason: err.Error()})
	}
	c.notices.drain(c.ctx, noticeWait, func() bool { return false })
	return c.result()
}

// canary is a rollout being carried out.
type canary struct {
	root     workflow.Context // only to hear of a cancel
	ctx      workflow.Context // disconnected: a cancel must not stop the restore that it asks for
	canceled bool             // the cancel was taken
	poke     workflow.Channel // wakes the loop after an update
	signals  []inbox
	log      log.Logger

	state      rollout.State
	task       *flight
	watched    bool         // this run has seen a slice to its end
	held       *rollout.Run // the next slice, not begun: the place for continue-as-new
	timer      workflow.Future
	stopTimer  workflow.CancelFunc
	armed      time.Time // what timer is, or was, set to
	notices    *notices
	shown      visible
	attributes bool // the namespace knows Aviary's search attributes
}

// newCanary is a rollout ready to begin. With an error the State says why there is none.
func newCanary(ctx workflow.Context, input, carried converter.RawValue) (*canary, error) {
	c := &canary{
		root: ctx, poke: workflow.NewBufferedChannel(ctx, 1), log: workflow.GetLogger(ctx), notices: &notices{},
	}
	c.ctx, _ = workflow.NewDisconnectedContext(ctx)
	info := workflow.GetInfo(ctx)
	now := workflow.Now(ctx).UTC()
	if carried.Payload() != nil {
		was, err := decodeCarried(carried)
		c.state, c.attributes = was.State, was.Attributes
		c.notices.thread, c.notices.queue = was.Thread, was.Notices
		if err != nil {
			// The canary may have traffic. A worker that knows the state will come, and a blocked task waits for it; ending the
			// workflow would leave nobody to restore.
			panic(err)
		}
		return c, nil
	}
	spec, err := decodeSpec(input)
	c.state = rollout.New(spec, info.WorkflowExecution.ID+"/"+info.FirstRunID, now)
	if err != nil {
		c.reject(err, now)
	}
	return c, err
}

// reject makes the State say that nothing was begun, for queries after the end.
func (c *canary) reject(err error, now time.Time) {
	c.state.Phase, c.state.Outcome, c.state.Reason, c.state.Ended = rollout.Rejected, rollout.Rejected, err.Error(), now
}

// run goes on until the rollout has ended. An error is an error inside Aviary, or the continue-as-new.
func (c *canary) run() error {
	for !c.state.Phase.Terminal() {
		if c.held != nil {
			if err := c.moveOn(); err != nil {
				return err
			}
			continue
		}
		c.selector().Select(c.ctx)
		if err := c.take(); err != nil {
			return err
		}
	}
	c.land()
	return nil
}

// selector waits for whatever the rollout may have to decide on. The callbacks of signals only collect: what is pending at
// one moment is taken by take, in its order and not in that of arrival.
func (c *canary) selector() workflow.Selector {
	s := workflow.NewSelector(c.ctx)
	for i := range c.signals {
		s.AddReceive(c.signals[i].channel, func(workflow.ReceiveChannel, bool) { c.signals[i].receive() })
	}
	if !c.canceled {
		s.AddReceive(c.root.Done(), func(workflow.ReceiveChannel, bool) {})
	}
	if c.task != nil {
		s.AddFuture(c.task.future, func(workflow.Future) {})
	}
	if c.timer != nil {
		s.AddFuture(c.timer, func(workflow.Future) {})
	}
	return s.AddReceive(c.poke, func(ch workflow.ReceiveChannel, _ bool) { ch.ReceiveAsync(nil) })
}

// take applies all that is pending: what restrains first, so that neither a finding nor an approval of the same moment gets
// ahead of an abort; what lets the rollout go on last, so that it can't get ahead of a finding.
func (c *canary) take() error {
	c.takeSignals(restrains)
	c.takeCancel()
	if err := c.takeTask(); err != nil {
		return err
	}
	c.takeSignals(func(rollout.Signal) bool { return true })
	c.takeTimer()
	return nil
}

func (c *canary) takeCancel() {
	if c.canceled || c.root.Err() == nil {
		return
	}
	c.canceled = true
	c.apply(rollout.CancelRequested{})
}

func (c *canary) takeTimer() {
	if c.timer == nil || !c.timer.IsReady() {
		return
	}
	c.timer, c.stopTimer = nil, nil
	c.apply(rollout.Tick{})
}

// apply steps the rollout and carries the commands out. It never blocks.
func (c *canary) apply(event rollout.Event) {
	if c.state.Phase.Terminal() {
		return
	}
	state, commands := rollout.Step(c.state, event, c.now())
	c.state = state
	for _, command := range commands {
		switch command := command.(type) {
		case rollout.Run:
			c.begin(command)
		case rollout.Tell:
			c.notices.add(command.Notice)
		case rollout.Finish:
			c.held = nil
		}
	}
	c.arm()
	c.show()
}

func (c *canary) now() time.Time { return workflow.Now(c.ctx).UTC() }

// arm keeps the one timer at State.Wake.
func (c *canary) arm() {
	wake, now := c.state.Wake, c.now()
	if wake.Equal(c.armed) && (c.timer != nil || !now.Before(wake)) {
		return // it is running, or Step has had its Tick
	}
	if c.timer != nil {
		c.stopTimer()
		c.timer, c.stopTimer = nil, nil
	}
	c.armed = wake
	if wake.IsZero() {
		return
	}
	ctx, cancel := workflow.WithCancel(c.ctx)
	c.timer = workflow.NewTimerWithOptions(ctx, max(wake.Sub(now), time.Millisecond), workflow.TimerOptions{Summary: c.guardSummary()})
	c.stopTimer = cancel
}

// moveOn is the moment between two slices, when nothing is in flight: it continues as new, unless something came up.
func (c *canary) moveOn() error {
	pending := c.selector()
	c.notices.drain(c.ctx, moveOnWait, pending.HasPending)
	if c.held == nil {
		return nil // an update came in between
	}
	next := *c.held
	c.held = nil
	if pending.HasPending() || !workflow.AllHandlersFinished(c.ctx) {
		c.start(next) // the next slice's end is another moment
		return nil
	}
	options := workflow.ContinueAsNewErrorOptions{}
	if workflow.GetInfo(c.ctx).GetTargetWorkerDeploymentVersionChanged() {
		options.InitialVersioningBehavior = workflow.ContinueAsNewVersioningBehaviorAutoUpgrade
	}
	return workflow.NewContinueAsNewErrorWithOptions(c.ctx, options, CanaryName, c.state.Spec, c.carry())
}

// moveOnWanted reports whether this run's history should end soon. A run that has not watched yet goes on in any case: runs
// that only ever hand over to the next one would watch nothing.
func (c *canary) moveOnWanted() bool {
	info := workflow.GetInfo(c.ctx)
	return c.watched && (info.GetContinueAsNewSuggested() || info.GetTargetWorkerDeploymentVersionChanged())
}

// result is the end of the workflow in the terminal phase that the rollout has reached.
func (c *canary) result() (rollout.Status, error) {
	status := c.state.Status()
	switch c.state.Phase {
	case rollout.Canceled:
		return status, temporal.NewCanceledError(status)
	case rollout.Rejected:
		return status, temporal.NewNonRetryableApplicationError(status.Reason, rollout.ErrInvalidRollout, nil, status)
	}
	return status, nil
}
