// Package simulate runs a rollout on a made-up world with the product's own workflow and activities, while time is skipped: a week
// takes seconds.
package simulate

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// Options say what is simulated.
type Options struct {
	Spec    rollout.Spec
	World   world.World
	Seed    uint64
	Approve time.Duration // how long a human takes to approve a stage; negative: nobody does
	Signals []Signal
	Start   time.Time // of the simulated time
}

// Signal is what a human asks, when.
type Signal struct {
	Signal rollout.Signal
	At     time.Duration // since the start
}

// Outcome is how a simulated rollout went.
type Outcome struct {
	Status    rollout.Status     // at the end, or where it waits for a human whom nobody plays
	Decisions []rollout.Decision // oldest first, in simulated time
	Ended     bool               // else it waits for a human
	Harm      []Harm             // what the canary did worse than stable, and better
}

// Harm is how many more bad outcomes users had on the canary than they would have had on stable.
type Harm struct {
	Metric string
	Excess float64 // events, or trials without the event where those are bad; below 0: fewer
}

// patience is how long a rollout that nobody helps is watched on, and lookEvery how often it is looked at.
const (
	lookEvery = 10 * time.Minute
	settled   = 3 // looks in a row at a rollout that waits
)

// wallTimeout bounds how long the simulation may stand still, in real time.
const wallTimeout = 10 * time.Minute

// Run simulates one rollout. The same Options give the same Outcome. Errors: a World that is not valid, or a rollout that the workflow refuses in a
// way that it should not.
func Run(ctx context.Context, o Options) (Outcome, error) {
	if err := o.World.Validate(); err != nil {
		return Outcome{}, fmt.Errorf("simulate: %w", err)
	}
	s := newSimulation(ctx, o)
	if err := s.prepare(); err != nil {
		return Outcome{}, err
	}
	s.env.ExecuteWorkflow(workflows.CanaryName, o.Spec)
	if err := ctx.Err(); err != nil {
		return Outcome{}, err
	}
	if s.fault != nil {
		return Outcome{}, s.fault
	}
	if !s.env.IsWorkflowCompleted() {
		return Outcome{}, errors.New("simulate: the workflow stopped without an end")
	}
	return s.outcome()
}

// simulation is one run.
type simulation struct {
	ctx   context.Context //nolint:containedctx // it ends the run from inside the environment's callbacks
	o     Options
	suite testsuite.WorkflowTestSuite
	env   *testsuite.TestWorkflowEnvironment
	plane *plane
	seen  *source
	acts  *activities.Activities

	mu      sync.Mutex
	ahead   time.Time // the time in a slice of watching, which runs through at once; zero outside
	waits   int       // looks in a row at a rollout that waits for a human
	stopped *rollout.Status
	log     []rollout.Decision // when it was stopped
	fault   error
}

func newSimulation(ctx context.Context, o Options) *simulation {
	s := &simulation{ctx: ctx, o: o}
	s.suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	s.env = s.suite.NewTestWorkflowEnvironment()
	s.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: workflows.WorkflowID(o.Spec.Agent), TaskQueue: workflows.TaskQueue})
	s.env.SetStartTime(o.Start)
	s.env.SetTestTimeout(wallTimeout)
	workflows.Register(s.env, workflow.VersioningBehaviorUnspecified)
	s.plane = &plane{now: s.Now}
	s.seen = newSource(&s.o.World, o.Seed, o.Start, s.plane, s.Now)
	return s
}

// prepare registers the product's activities over the made-up data plane and metrics, and schedules what humans do.
func (s *simulation) prepare() error {
	t, m := s.o.Spec.Traffic, s.o.Spec.Metrics
	acts, err := activities.New(activities.Config{
		Drivers:   map[string]activities.Targets[traffic.Driver]{t.Driver: {t.Target: s.plane}},
		Providers: map[string]activities.Targets[metrics.Provider]{m.Provider: {m.Target: s.seen}},
		Notifiers: activities.Notifiers{Log: nobody{}},
		Workflows: nobody{},
		CheckSpec: config.CheckSpec,
		Analysis:  config.AnalysisConfig,
		Clock:     s, NoHeartbeats: true,
	})
	if err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	s.acts = acts
	acts.Register(registry{s})
	for _, signal := range s.o.Signals {
		s.env.RegisterDelayedCallback(func() { s.env.SignalWorkflow(string(signal.Signal), nil) }, signal.At)
	}
	s.lookAgain(lookEvery)
	return nil
}

// registry registers activities with the environment, but for Observe: the environment waits in real time for activities, so a
// slice of watching is run through at once, and reported when it ends in simulated time.
type registry struct{ *simulation }

// RegisterActivityWithOptions is what activities.Register asks for.
func (r registry) RegisterActivityWithOptions(a any, o activity.RegisterOptions) {
	if o.Name == string(rollout.TaskObserve) {
		a = r.observe
	}
	r.env.RegisterActivityWithOptions(a, o)
}

// observe is the activity Observe.
func (s *simulation) observe(ctx context.Context, request rollout.ObserveRequest) (rollout.ObserveResult, error) {
	none := rollout.ObserveResult{}
	// The environment's clock goes on by what passes really: a little, and not always the same.
	s.set(s.env.Now().Round(time.Second))
	env := s.suite.NewTestActivityEnvironment()
	env.RegisterActivityWithOptions(s.acts.Observe, activity.RegisterOptions{Name: string(rollout.TaskObserve)})
	value, err := env.ExecuteActivity(s.acts.Observe, request)
	end := s.Now()
	s.set(time.Time{})
	var result rollout.ObserveResult
	if err == nil {
		err = value.Get(&result)
	}
	if err != nil {
		return none, err
	}
	token := activity.GetInfo(ctx).TaskToken
	s.env.RegisterDelayedCallback(func() {
		if err := s.env.CompleteActivity(token, result, nil); err != nil {
			s.fail(fmt.Errorf("simulate: end a slice of watching: %w", err))
		}
	}, max(0, end.Sub(s.env.Now())))
	return none, activity.ErrResultPending
}

// Now is the simulated time.
func (s *simulation) Now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.ahead.IsZero() {
		return s.ahead
	}
	return s.env.Now().Round(time.Second)
}

// After lets simulated time pass at once.
func (s *simulation) After(d time.Duration) <-chan time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = s.ahead.Add(d)
	c := make(chan time.Time, 1)
	c <- s.ahead
	return c
}

func (s *simulation) set(ahead time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ahead = ahead
}

func (s *simulation) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault = errors.Join(s.fault, err)
}

// lookAgain looks after a while whether the rollout waits for a human: it is approved if somebody does that, and stopped if nobody comes.
func (s *simulation) lookAgain(after time.Duration) {
	s.env.RegisterDelayedCallback(func() {
		if s.env.IsWorkflowCompleted() {
			return
		}
		if s.ctx.Err() != nil {
			s.env.CancelWorkflow()
			return
		}
		status, ok := query[rollout.Status](s, workflows.QueryStatus)
		if ok && s.waiting(status) {
			return
		}
		s.lookAgain(lookEvery)
	}, after)
}

// waiting helps a rollout that waits for a human, and reports whether it was stopped because nobody will come.
func (s *simulation) waiting(status rollout.Status) bool {
	approval := status.Phase == rollout.AwaitingApproval
	switch {
	case !approval && status.Paused == nil:
		s.waits = 0
		return false
	case approval && status.Paused == nil && s.o.Approve >= 0:
		if waited := s.Now().Sub(status.Last.At); waited >= s.o.Approve {
			s.env.SignalWorkflow(string(rollout.SignalApprove), nil)
		}
		return false
	case s.comes():
		return false
	}
	if s.waits++; s.waits < settled {
		return false
	}
	decisions, _ := query[[]rollout.Decision](s, workflows.QueryDecisions)
	s.stopped, s.log = &status, decisions
	s.env.CancelWorkflow()
	return true
}

// comes reports whether a human has still something to say.
func (s *simulation) comes() bool {
	now := s.Now()
	for _, signal := range s.o.Signals {
		if s.o.Start.Add(signal.At).After(now) {
			return true
		}
	}
	return false
}

func query[T any](s *simulation, name string) (T, bool) {
	var out T
	value, err := s.env.QueryWorkflow(name)
	if err != nil {
		return out, false
	}
	return out, value.Get(&out) == nil
}

func (s *simulation) outcome() (Outcome, error) {
	if s.stopped != nil {
		return Outcome{Status: *s.stopped, Decisions: s.log, Harm: s.harm(s.Now())}, nil
	}
	var out Outcome
	if err := s.env.GetWorkflowError(); err != nil {
		if status, ok := query[rollout.Status](s, workflows.QueryStatus); ok && status.Phase.Terminal() {
			out.Status = status
		} else {
			return out, fmt.Errorf("simulate: the workflow ended badly: %w", err)
		}
	} else if err := s.env.GetWorkflowResult(&out.Status); err != nil {
		return out, fmt.Errorf("simulate: read the result: %w", err)
	}
	decisions, ok := query[[]rollout.Decision](s, workflows.QueryDecisions)
	if !ok {
		return out, errors.New("simulate: the workflow does not tell its decisions")
	}
	out.Decisions, out.Ended, out.Harm = decisions, true, s.harm(out.Status.Ended)
	return out, nil
}

// nobody is told, and knows no workflow.
type nobody struct{}

// Notify drops the notice.
func (nobody) Notify(context.Context, notify.Request) (notify.Thread, error) { return nil, nil }

// DescribeWorkflowExecution knows none.
func (nobody) DescribeWorkflowExecution(context.Context, string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return nil, errors.New("there are no workflows here")
}
