package activities

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// told is how far telling one notice has come: it is kept in the heartbeat, so that a retry leaves out who has it already.
type told struct {
	Threads threads  `json:"threads,omitempty"`
	Done    []string `json:"done,omitempty"`
}

// threads are the notifiers' own, by notifier.
type threads map[string]notify.Thread

// receiver is one way to tell a rollout's humans.
type receiver struct {
	name     string
	notifier notify.Notifier
}

// Notify tells the humans in every way that the rollout names, or the log when it names none. A way that fails does not keep
// the others from it. Errors: of the ways that failed, retryable if any of them is; InvalidRollout for an unknown target.
func (a *Activities) Notify(ctx context.Context, request notify.Request) (notify.Thread, error) {
	info := activity.GetInfo(ctx)
	if info.Attempt <= 1 {
		a.meter.decision(request.Notice.Decision.Kind)
	}
	receivers, unknown := a.receivers(request.Notice.Notify)
	progress := told{Threads: threads{}}
	if len(request.Thread) > 0 {
		// A thread that can't be read is one less; the notice is told all the same.
		_ = json.Unmarshal(request.Thread, &progress.Threads)
	}
	if activity.HasHeartbeatDetails(ctx) {
		var before told
		if activity.GetHeartbeatDetails(ctx, &before) == nil && before.Threads != nil {
			progress = before
		}
	}
	failed := []error{unknown}
	for _, r := range receivers {
		if slices.Contains(progress.Done, r.name) {
			continue
		}
		thread, err := within(ctx, noticeLimit, func(ctx context.Context) (notify.Thread, error) {
			return r.notifier.Notify(ctx, notify.Request{Notice: request.Notice, Thread: progress.Threads[r.name], Attempt: info.Attempt})
		})
		if err != nil {
			failed = append(failed, noticeError(err))
			continue
		}
		if len(thread) > 0 {
			progress.Threads[r.name] = thread
		}
		progress.Done = append(progress.Done, r.name)
		activity.RecordHeartbeat(ctx, progress)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return a.outcome(ctx, info, progress, failed)
}

// outcome is the threads, or the error to try again for. When trying again is no use, the threads of those who were told count
// more than the error of the others.
func (a *Activities) outcome(ctx context.Context, info activity.Info, progress told, failed []error) (notify.Thread, error) {
	failed = slices.DeleteFunc(failed, func(err error) bool { return err == nil })
	last := info.RetryPolicy != nil && info.RetryPolicy.MaximumAttempts > 0 && info.Attempt >= info.RetryPolicy.MaximumAttempts
	if i := slices.IndexFunc(failed, func(err error) bool { return !final(err) }); i >= 0 && !last {
		return nil, failed[i]
	}
	if len(failed) > 0 && len(progress.Done) == 0 {
		return nil, failed[0]
	}
	if len(failed) > 0 {
		activity.GetLogger(ctx).Warn("a notice did not reach everybody", "error", errors.Join(failed...))
	}
	if len(progress.Threads) == 0 {
		return nil, nil
	}
	thread, err := json.Marshal(progress.Threads)
	if err != nil {
		return nil, temporal.NewNonRetryableApplicationError("a notifier's thread is no JSON: "+err.Error(), errNotifier, err)
	}
	return thread, nil
}

// receivers are those that a rollout names and this worker knows. The error names the others.
func (a *Activities) receivers(n rollout.Notify) ([]receiver, error) {
	var out []receiver
	var errs []error
	add := func(kind, target string, targets Targets[notify.Notifier]) {
		notifier, err := pickTarget(targets, "notifier "+kind, target)
		if err != nil {
			errs = append(errs, err)
			return
		}
		out = append(out, receiver{kind + "/" + target, notifier})
	}
	if n.Slack != nil {
		add("slack", n.Slack.Target, a.config.Notifiers.Slack)
	}
	if n.Webhook != nil {
		add("webhook", n.Webhook.Target, a.config.Notifiers.Webhook)
	}
	if len(out) == 0 {
		out = append(out, receiver{"log", a.config.Notifiers.Log})
	}
	if len(errs) > 0 {
		return out, errs[0]
	}
	return out, nil
}
