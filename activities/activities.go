// Package activities is everything a rollout does to the world: it moves traffic, watches the numbers, tells the humans and
// finds what nobody owns any more. Each activity is idempotent and classifies its errors once; Temporal owns the retries.
package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Targets are the connections of one kind, by the name that rollouts give.
type Targets[T any] map[string]T

// Clock tells the time. Tests bring their own.
type Clock interface {
	Now() time.Time
	// After is closed or sent to once d has passed.
	After(d time.Duration) <-chan time.Time
}

// Describer looks workflows up, as a Temporal client does.
type Describer interface {
	DescribeWorkflowExecution(ctx context.Context, workflowID, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error)
}

// Notifiers are the ways to tell the humans.
type Notifiers struct {
	Slack   Targets[notify.Notifier]
	Webhook Targets[notify.Notifier]
	Log     notify.Notifier // for rollouts that name no other; required
}

// Config is what Activities work with.
type Config struct {
	Drivers   map[string]Targets[traffic.Driver]   // by kind, such as "router", then target
	Providers map[string]Targets[metrics.Provider] // by kind, then target
	Notifiers Notifiers
	Workflows Describer // for Orphans; required
	// CheckSpec refuses a Spec that breaks the rules of rollout files. Required.
	CheckSpec func(rollout.Spec) error
	// Analysis says how a Spec is judged. Required.
	Analysis func(rollout.Spec) (analysis.Config, error)
	// SearchAttributes reports whether the namespace knows Aviary's search attributes. Nil: it does not.
	SearchAttributes func(context.Context) bool
	Registerer       prometheus.Registerer // nil: Aviary's own metrics go nowhere
	Clock            Clock                 // nil: the wall clock
	NoHeartbeats     bool                  // nobody would go on where an attempt dies: of use in simulations only
}

// Activities implement the activities of the workflows Canary and Sweep. They are safe for concurrent use.
type Activities struct {
	config Config
	clock  Clock
	meter  *meter
}

// New is Activities over what config holds. Errors: something required is missing, or the metrics are registered already.
func New(config Config) (*Activities, error) {
	switch {
	case config.CheckSpec == nil:
		return nil, errors.New("activities: CheckSpec is missing")
	case config.Analysis == nil:
		return nil, errors.New("activities: Analysis is missing")
	case config.Workflows == nil:
		return nil, errors.New("activities: Workflows is missing")
	case config.Notifiers.Log == nil:
		return nil, errors.New("activities: Notifiers.Log is missing")
	}
	a := &Activities{config: config, clock: config.Clock}
	if a.clock == nil {
		a.clock = wallClock{}
	}
	var err error
	if a.meter, err = newMeter(config.Registerer, a.clock); err != nil {
		return nil, fmt.Errorf("activities: register metrics: %w", err)
	}
	return a, nil
}

// Registry takes activities, as a Temporal worker does.
type Registry interface {
	RegisterActivityWithOptions(a any, options activity.RegisterOptions)
}

// Wire names of the activities that are no tasks of rollout.Step.
const (
	NameOrphans = "Orphans"
	NameNotify  = "Notify"
	NameInspect = "Inspect"
)

// Register registers every activity under its wire name.
func (a *Activities) Register(r Registry) {
	for name, f := range map[string]any{
		string(rollout.TaskValidate):  a.Validate,
		string(rollout.TaskSetWeight): a.SetWeight,
		string(rollout.TaskObserve):   a.Observe,
		string(rollout.TaskRestore):   a.Restore,
		string(rollout.TaskFinalize):  a.Finalize,
		NameOrphans:                   a.Orphans,
		NameNotify:                    a.Notify,
		NameInspect:                   a.Inspect,
	} {
		r.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

func (a *Activities) driver(kind, target string) (traffic.Driver, error) {
	return pick(a.config.Drivers, "traffic driver", kind, target)
}

func (a *Activities) provider(kind, target string) (metrics.Provider, error) {
	return pick(a.config.Providers, "metrics provider", kind, target)
}

// pick finds a connection. What is unknown is named beside what is known; it is never a default.
func pick[T any](kinds map[string]Targets[T], what, kind, target string) (T, error) {
	targets, ok := kinds[kind]
	if !ok {
		var none T
		return none, invalid("unknown %s %q, this worker has %s", what, kind, known(kinds))
	}
	return pickTarget(targets, what+" "+kind, target)
}

func pickTarget[T any](targets Targets[T], what, target string) (T, error) {
	found, ok := targets[target]
	if !ok {
		return found, invalid("unknown target %q of %s, this worker has %s", target, what, known(targets))
	}
	return found, nil
}

func known[T any](m map[string]T) string {
	if len(m) == 0 {
		return "none"
	}
	return strings.Join(slices.Sorted(maps.Keys(m)), ", ")
}

// invalid is the error of a rollout that can never work.
func invalid(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), rollout.ErrInvalidRollout, nil)
}

type wallClock struct{}

func (wallClock) Now() time.Time                         { return time.Now() }
func (wallClock) After(d time.Duration) <-chan time.Time { return time.After(d) }
