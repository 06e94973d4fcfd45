package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.temporal.io/api/serviceerror"
	"google.golang.org/grpc/codes"

	"github.com/aviary-rollouts/aviary/rollout"
)

// usageError is the caller's mistake: nothing was done.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// takenBack is the end of a rollout that was waited for, other than a promotion. It has been shown already.
type takenBack struct{ phase rollout.Phase }

func (e takenBack) Error() string { return "the rollout ended: " + string(e.phase) }

// interrupted is the end of watching before the end of the rollout. It has been said already.
type interrupted struct{}

func (interrupted) Error() string { return "interrupted" }

// end says what went wrong, if anything did, and returns the exit code.
func (a *app) end(err error) int {
	var (
		usage usageError
		taken takenBack
	)
	switch {
	case err == nil:
		return ExitDone
	case errors.As(err, &taken):
		if taken.phase == rollout.Rejected {
			return ExitFailed
		}
		return ExitTakenBack
	case errors.As(err, &interrupted{}):
		return ExitFailed
	case errors.As(err, &usage) || a.entered == "":
		a.warn("%v", strings.TrimSpace(err.Error()))
		if !errors.As(err, &badFile{}) {
			_, _ = fmt.Fprintln(a.Err, "Run 'starter --help' for the commands, 'starter COMMAND --help' for the flags of one.")
		}
		return ExitUsage
	}
	a.warn("%v", err)
	return ExitFailed
}

// noAnswer reports whether err means that no worker answered: none polls, or none did so in time.
func noAnswer(err error) bool {
	var (
		precondition *serviceerror.FailedPrecondition
		notReady     *serviceerror.WorkflowNotReady
		canceled     *serviceerror.Canceled
	)
	return late(err) || errors.As(err, &precondition) || errors.As(err, &notReady) || errors.As(err, &canceled)
}

// late reports whether err means that time ran out.
func late(err error) bool {
	var deadline *serviceerror.DeadlineExceeded
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &deadline)
}

func notFound(err error) bool {
	var e *serviceerror.NotFound
	return errors.As(err, &e)
}

// unreachable reports whether err means that Temporal itself did not answer.
func unreachable(err error) bool {
	var e *serviceerror.Unavailable
	return errors.As(err, &e)
}

// explain says what an error of Temporal means here, and what to do next.
func (s *session) explain(doing string, err error) error {
	var (
		space    *serviceerror.NamespaceNotFound
		denied   *serviceerror.PermissionDenied
		throttle *serviceerror.ResourceExhausted
	)
	switch {
	case errors.As(err, &space):
		return fmt.Errorf("%s: Temporal at %s has no namespace %q: set TEMPORAL_NAMESPACE or --namespace", doing, s.address, s.namespace)
	case errors.As(err, &denied), serviceerror.ToStatus(err).Code() == codes.Unauthenticated:
		return fmt.Errorf("%s: Temporal at %s refuses access: check TEMPORAL_API_KEY, the TEMPORAL_TLS_ settings and the namespace: %w", doing, s.address, err)
	case errors.As(err, &throttle):
		return fmt.Errorf("%s: Temporal at %s is busy, try again shortly: %w", doing, s.address, err)
	case unreachable(err), late(err):
		return fmt.Errorf("%s: Temporal at %s does not answer: is it up, and is TEMPORAL_ADDRESS right? %w", doing, s.address, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}
