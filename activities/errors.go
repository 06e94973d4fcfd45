package activities

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Bounds on single calls, so that one that hangs holds nothing up: heartbeats, drains and other tries go on.
const (
	applyLimit   = 20 * time.Second // all replicas, with the read-back
	renewLimit   = 8 * time.Second
	readLimit    = 5 * time.Second
	sampleLimit  = 10 * time.Second
	listLimit    = 15 * time.Second
	lookupLimit  = 5 * time.Second
	noticeLimit  = 15 * time.Second
	maxNextRetry = 5 * time.Minute // a longer Retry-After than this is not believed
)

// within calls f and gives up on it after limit, even if f does not heed its context.
func within[T any](ctx context.Context, limit time.Duration, f func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := f(ctx)
		answers <- answer{value, err}
	}()
	select {
	case a := <-answers:
		return a.value, a.err
	case <-ctx.Done():
	}
	select {
	case a := <-answers: // both at once: the answer counts
		return a.value, a.err
	default:
	}
	var none T
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return none, fmt.Errorf("no answer within %s: %w", limit, ctx.Err())
	}
	return none, ctx.Err()
}

// address matches what errors hold of where things are: URLs, and host:port pairs as dial errors name them.
var address = regexp.MustCompile(`https?://[^\s"',;]+|(?:\[[0-9a-fA-F:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):\d{2,5}\b|lookup [^\s:]+`)

// bare is an error's text without addresses: it goes into histories and notices, which never hold one.
func bare(err error) string { return address.ReplaceAllString(err.Error(), "[address]") }

// settled reports whether err needs no classifying: it was classified where it arose, or the caller wants no answer any more.
func settled(err error) bool {
	var app *temporal.ApplicationError
	return err == nil || errors.As(err, &app) || errors.Is(err, context.Canceled)
}

// routeError classifies an error of a traffic driver for Temporal.
func routeError(err error) error {
	var lost *traffic.OwnershipLost
	var rejected *traffic.Rejected
	var busy *traffic.Busy
	switch {
	case settled(err):
		return err
	case errors.As(err, &lost):
		return temporal.NewNonRetryableApplicationError(lost.Error(), rollout.ErrOwnershipLost, err)
	case errors.As(err, &rejected):
		return temporal.NewNonRetryableApplicationError(rejected.Error(), rollout.ErrInvalidRollout, err)
	case errors.As(err, &busy):
		return retry(rollout.ErrDriver, err, busy.RetryAfter)
	}
	return retry(rollout.ErrDriver, err, 0)
}

// sourceError classifies an error of a metrics provider for Temporal.
func sourceError(err error) error {
	var rejected *metrics.Rejected
	var busy *metrics.Busy
	switch {
	case settled(err):
		return err
	case errors.As(err, &rejected):
		return temporal.NewNonRetryableApplicationError(rejected.Error(), rollout.ErrInvalidRollout, err)
	case errors.As(err, &busy):
		return retry(rollout.ErrProvider, err, busy.RetryAfter)
	}
	return retry(rollout.ErrProvider, err, 0)
}

// errNotifier is the type of errors that telling the humans ends with.
const errNotifier = "NotifierError"

// noticeError classifies an error of a notifier for Temporal.
func noticeError(err error) error {
	var rejected *notify.Rejected
	var busy *notify.Busy
	switch {
	case settled(err):
		return err
	case errors.As(err, &rejected):
		return temporal.NewNonRetryableApplicationError(rejected.Error(), errNotifier, err)
	case errors.As(err, &busy):
		return retry(errNotifier, err, busy.RetryAfter)
	}
	return retry(errNotifier, err, 0)
}

// retry is a passing error. After 0 is as the retry policy says.
func retry(kind string, err error, after time.Duration) error {
	return temporal.NewApplicationErrorWithOptions(bare(err), kind, temporal.ApplicationErrorOptions{
		NextRetryDelay: min(max(after, 0), maxNextRetry),
	})
}

// final reports whether Temporal would not retry err.
func final(err error) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.NonRetryable()
}

// newerDelay is how soon a newer worker is looked for.
const newerDelay = 5 * time.Second

// isNewer reports whether an error is of something that a newer worker wrote.
func isNewer(err error) bool {
	return errors.Is(err, errNewer) || errors.Is(err, analysis.ErrNewer) || errors.Is(err, metrics.ErrNewer)
}

// unreadable is the error for memory of a slice or an attempt before that can't be read. When a newer worker wrote it, as in the middle of an
// upgrade, nothing is wrong with the canary: the attempt is left to a worker that can read it.
func unreadable(what string, err error) error {
	if !isNewer(err) {
		return invalid("%s can't be read: %v", what, err)
	}
	return temporal.NewApplicationErrorWithOptions("this worker is older than what watched before it, a newer one goes on: "+what+": "+err.Error(),
		rollout.ErrWorkerDraining, temporal.ApplicationErrorOptions{
			NextRetryDelay: newerDelay, Category: temporal.ApplicationErrorCategoryBenign,
		})
}
