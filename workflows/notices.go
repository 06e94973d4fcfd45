package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

const (
	noticeWait = 30 * time.Second // for the last notices, at the end of a rollout
	moveOnWait = 2 * time.Second  // at continue-as-new, while nobody watches: what is not told by then is carried
	maxNotices = 50               // that wait to be told
)

// notices tells the humans, one notice after the other, beside the rollout and never in its way.
type notices struct {
	queue  []rollout.Notice // the first one may be under way
	thread notify.Thread
}

// add queues a notice. When too many wait, an old one goes, the least urgent first.
func (n *notices) add(notice rollout.Notice) {
	n.queue = append(n.queue, notice)
	if len(n.queue) <= maxNotices {
		return
	}
	drop := slices.IndexFunc(n.queue[1:], func(q rollout.Notice) bool { return q.Urgency == rollout.Info })
	drop = max(drop, 0) + 1
	n.queue = slices.Delete(n.queue, drop, drop+1)
}

// send is the coroutine that tells.
func (n *notices) send(ctx workflow.Context) {
	log := workflow.GetLogger(ctx)
	for workflow.Await(ctx, func() bool { return len(n.queue) > 0 }) == nil {
		notice := n.queue[0]
		with := workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout:    20 * time.Second,
			ScheduleToCloseTimeout: 5 * time.Minute,
			RetryPolicy: &temporal.RetryPolicy{
				InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute, MaximumAttempts: 5,
			},
			Summary: "notify: " + string(notice.Decision.Kind),
		})
		var thread notify.Thread
		err := workflow.ExecuteActivity(with, NotifyName, notify.Request{Notice: notice, Thread: n.thread}).Get(ctx, &thread)
		switch {
		case err != nil:
			log.Warn("a notice was not told", "notice", notice.ID, "error", err)
		case len(thread) > 0:
			n.thread = thread
		}
		n.queue = n.queue[1:]
	}
}

// drain waits a little until all has been told, or something more important comes up.
func (n *notices) drain(ctx workflow.Context, limit time.Duration, interrupt func() bool) {
	told := func() bool { return len(n.queue) == 0 }
	if told() {
		return
	}
	_, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{
		Timeout: limit, TimerOptions: workflow.TimerOptions{Summary: "wait for the last notices"},
	}, func() bool { return told() || interrupt() })
	if err != nil || !told() {
		workflow.GetLogger(ctx).Warn("not every notice was told in time", "left", len(n.queue))
	}
}
