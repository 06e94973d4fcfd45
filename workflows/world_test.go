package workflows

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// never is how long an activity takes that does not answer at all.
const never = -1

// world is everything outside the workflow: a data plane that keeps a weight, an observer, a notifier. Time is the
// environment's, which skips what nobody waits for.
type world struct {
	t   *testing.T
	env *testsuite.TestWorkflowEnvironment

	attributes bool // Validate finds the search attributes
	// take says how long an activity takes, and how it ends. The default is at once, and well.
	take map[rollout.TaskKind]func(try int) (time.Duration, error)
	// observe is what one slice sees, and when it reports. The default is a healthy canary.
	observe func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration)
	notify  func(try int) (time.Duration, error)

	mu      sync.Mutex
	tries   map[string]int
	calls   []string // what moved traffic or watched, in order
	weight  rollout.Weight
	owner   string
	routes  []rollout.Route
	notices []rollout.Notice
	threads []string
	slices  []rollout.ObserveRequest
}

func newWorld(t *testing.T) *world {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	w := &world{t: t, env: suite.NewTestWorkflowEnvironment(), tries: map[string]int{},
		take: map[rollout.TaskKind]func(int) (time.Duration, error){}}
	w.env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: WorkflowID("support-agent"), TaskQueue: TaskQueue})
	w.env.SetStartTime(time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC))
	w.env.SetTestTimeout(30 * time.Second)
	Register(w.env, workflow.VersioningBehaviorUnspecified)
	for name, f := range map[string]any{
		"Validate": w.doValidate, "SetWeight": w.doRoute(rollout.TaskSetWeight), "Restore": w.doRoute(rollout.TaskRestore),
		"Finalize": w.doRoute(rollout.TaskFinalize), "Observe": w.doObserve, "Notify": w.doNotify,
	} {
		w.env.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
	return w
}

// run executes the workflow to its end.
func (w *world) run(args ...any) {
	w.t.Helper()
	w.env.ExecuteWorkflow(CanaryName, args...)
	if !w.env.IsWorkflowCompleted() {
		w.t.Fatalf("the workflow did not end; calls %q", w.calls)
	}
}

// at does something at a moment of the rollout's time.
func (w *world) at(d time.Duration, f func()) { w.env.RegisterDelayedCallback(f, d) }

func (w *world) signal(d time.Duration, s rollout.Signal, payload any) {
	w.at(d, func() { w.env.SignalWorkflow(string(s), payload) })
}

// status asks the query.
func (w *world) status() rollout.Status { return query[rollout.Status](w, QueryStatus) }

func (w *world) decisions() []rollout.Decision { return query[[]rollout.Decision](w, QueryDecisions) }

func query[T any](w *world, name string) T {
	w.t.Helper()
	var out T
	value, err := w.env.QueryWorkflow(name)
	if err == nil {
		err = value.Get(&out)
	}
	if err != nil {
		w.t.Errorf("query %s: %v", name, err)
	}
	return out
}

// result is the workflow's result.
func (w *world) result() rollout.Status {
	w.t.Helper()
	var out rollout.Status
	if err := w.env.GetWorkflowError(); err != nil {
		w.t.Fatalf("the workflow ended with %v; calls %q", err, w.calls)
	}
	if err := w.env.GetWorkflowResult(&out); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func (w *world) begin(name string) (try int, now time.Time) {
	now = w.env.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tries[name]++
	return w.tries[name], now
}

func (w *world) called(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls = append(w.calls, fmt.Sprintf(format, args...))
}

// after ends an activity later, in the environment's time, with what it then does.
func (w *world) after(ctx context.Context, d time.Duration, result any, does func()) error {
	if d != never {
		token := activity.GetInfo(ctx).TaskToken
		w.env.RegisterDelayedCallback(func() {
			does()
			if err := w.env.CompleteActivity(token, result, nil); err != nil {
				w.t.Errorf("complete: %v", err)
			}
		}, d)
	}
	return activity.ErrResultPending
}

func (w *world) taken(kind rollout.TaskKind, try int) (time.Duration, error) {
	if f := w.take[kind]; f != nil {
		return f(try)
	}
	return 0, nil
}

func (w *world) doValidate(ctx context.Context, _ rollout.Spec) (validated, error) {
	try, _ := w.begin("Validate")
	d, err := w.taken(rollout.TaskValidate, try)
	if err == nil && d != 0 {
		err = w.after(ctx, d, validated{SearchAttributes: w.attributes}, func() {})
	}
	return validated{SearchAttributes: w.attributes}, err
}

func (w *world) doRoute(kind rollout.TaskKind) func(context.Context, rollout.Route) error {
	return func(ctx context.Context, r rollout.Route) error {
		try, _ := w.begin(string(kind))
		d, err := w.taken(kind, try)
		if err != nil {
			return err
		}
		w.called("%s %s", kind, r.Weight)
		w.mu.Lock()
		w.routes = append(w.routes, r)
		w.mu.Unlock()
		apply := func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.weight, w.owner = r.Weight, r.Owner
		}
		if d != 0 {
			return w.after(ctx, d, nil, apply)
		}
		apply()
		return nil
	}
}

func (w *world) doObserve(ctx context.Context, r rollout.ObserveRequest) (rollout.ObserveResult, error) {
	_, now := w.begin("Observe")
	w.called("Observe %s", r.Route.Weight)
	w.mu.Lock()
	w.slices = append(w.slices, r)
	w.mu.Unlock()
	see := w.observe
	if see == nil {
		see = healthy
	}
	result, d := see(now, r)
	return result, w.after(ctx, d, result, func() {})
}

func (w *world) doNotify(ctx context.Context, r notify.Request) (notify.Thread, error) {
	try, _ := w.begin("Notify")
	var d time.Duration
	if w.notify != nil {
		var err error
		if d, err = w.notify(try); err != nil {
			return nil, err
		}
	}
	w.mu.Lock()
	w.notices = append(w.notices, r.Notice)
	w.threads = append(w.threads, string(r.Thread))
	thread := notify.Thread(fmt.Sprintf(`{"posts":%d}`, len(w.notices)))
	w.mu.Unlock()
	if d != 0 {
		return nil, w.after(ctx, d, thread, func() {})
	}
	return thread, nil
}

// healthy sees a slice through, with a hundred requests a second and nothing to complain of.
func healthy(_ time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
	d := r.Slice.Std()
	finding := rollout.FoundNothing
	if r.Gate && r.Remaining <= r.Slice {
		finding = rollout.FoundReady
	}
	return sees(r, finding, d), max(d, time.Second)
}

// sees is a slice that was watched for d.
func sees(r rollout.ObserveRequest, finding rollout.Finding, d time.Duration) rollout.ObserveResult {
	canary := d.Seconds() * 100 * r.Route.Weight.Fraction()
	return rollout.ObserveResult{
		Finding: finding, Reason: "seen " + string(finding), Observed: rollout.Duration(d), Verdict: rollout.Met, Gate: rollout.Met,
		Requests: rollout.Requests{Stable: d.Seconds()*100 - canary, Canary: canary}, Cursor: json.RawMessage(`{"at":1}`), Polls: 1,
		Evidence: []rollout.Evidence{{Check: "error_rate_increase < 0.10", Metric: "error_rate", Role: "stage", Verdict: rollout.Met}},
	}
}

// finding reports a finding one minute into the slice in which some stage is watched, and is healthy otherwise.
func findingAt(stage int, finding rollout.Finding) func(time.Time, rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
	return func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
		if r.Stage != stage || (r.Tolerate && finding == rollout.FoundViolation) {
			return healthy(now, r)
		}
		return sees(r, finding, time.Minute), time.Minute
	}
}

// spec is a rollout of three stages: 5 % and 25 % for 30 minutes each, then everything.
func spec() rollout.Spec {
	stage := func(name string, weight rollout.Weight, d time.Duration) rollout.Stage {
		return rollout.Stage{Name: name, Weight: weight, Duration: rollout.Duration(d), AutoRollback: true, Approval: rollout.ApprovalNone,
			MaxHold: rollout.Duration(2 * time.Hour), OnHold: rollout.PolicyPause}
	}
	last := stage("full", rollout.FullWeight, 0)
	return rollout.Spec{
		Agent: "support-agent", Stable: "v41", Canary: "v42",
		Traffic: rollout.Traffic{Driver: "router", Target: "default", Lease: rollout.Duration(2 * time.Minute), OnRollback: rollout.Evict},
		Metrics: rollout.Metrics{Provider: "router", Target: "default", Interval: rollout.Duration(10 * time.Second),
			NoDataTimeout: rollout.Duration(10 * time.Minute), OnNoData: rollout.PolicyPause},
		Stages: []rollout.Stage{stage("initial", 500, 30*time.Minute), stage("wider", 2500, 30*time.Minute), last},
	}
}

func broken(kind string) error {
	return temporal.NewNonRetryableApplicationError("no "+kind, kind, nil)
}

// always is an activity that takes d, and ends with err.
func always(d time.Duration, err error) func(int) (time.Duration, error) {
	return func(int) (time.Duration, error) { return d, err }
}
