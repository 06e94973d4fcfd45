package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"

	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"pgregory.net/rapid"

	. "github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

var t0 = time.Date(2026, 3, 2, 9, 0, 0, 0, time.UTC)

const owner = "canary/support-agent/0195c1de-0000-7000-8000-000000000001"

// world is agents with traffic, a data plane and a metrics source. Its time passes only while somebody waits.
type world struct {
	mu  sync.Mutex
	now time.Time

	// What the versions do, per second, as a function of the time since t0.
	stable, canary behaviour
	source         func(since time.Duration) error // nil: it answers
	plane          func(since time.Duration) error // nil: it answers
	onSample       func(n int)                     // after the n-th answer of the source is ready, from 1
	onWait         func(since time.Duration)
	behind         time.Duration                     // how much older the source's numbers may be than its answer
	takes          time.Duration                     // how long every request takes; 0: nobody measures it
	share          func(since time.Duration) float64 // the canary's, of the conversations that begin; nil: its weight

	samples  int
	applied  []rollout.Route
	weight   rollout.Weight
	owner    string
	revision int64
	versions []string
	canaries string   // what the plane says the canary is
	changed  []string // versions that became others under their names
	expired  bool
	mirrors  bool           // it can
	mirror   rollout.Weight // in force
	effects  bool           // the agent's requests have side effects
}

// behaviour is how a version behaves: requests per second, the share that fails, and safety violations from a moment on.
type behaviour struct {
	rps, failing float64
	failsFrom    time.Duration
	failsUntil   time.Duration // 0: for ever
	silentFrom   time.Duration // 0: never
	silentUntil  time.Duration
	unsafeFrom   time.Duration // 0: never; one violation at that moment
}

func newWorld() *world {
	return &world{
		now: t0, stable: behaviour{rps: 40, failing: 0.01}, canary: behaviour{rps: 10, failing: 0.01},
		weight: 500, owner: owner, revision: 3, versions: []string{"v41", "v42"}, canaries: "v42",
	}
}

// Now implements Clock.
func (w *world) Now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// After implements Clock: it is over at once, and the time has passed.
func (w *world) After(d time.Duration) <-chan time.Time {
	w.pass(d)
	if w.onWait != nil {
		w.onWait(w.since())
	}
	passed := make(chan time.Time)
	close(passed)
	return passed
}

func (w *world) pass(d time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(d)
}

func (w *world) since() time.Duration { return w.Now().Sub(t0) }

// counters are the version's counters at a time since t0: requests, failures, violations. They only rise.
func (b behaviour) counters(since time.Duration) [3]float64 {
	served := since
	if b.silentFrom > 0 && since > b.silentFrom {
		served -= min(since, b.silentUntil) - b.silentFrom
	}
	requests := math.Floor(served.Seconds() * b.rps)
	fails := served
	if b.failsUntil > 0 {
		fails = min(fails, b.failsUntil)
	}
	failed := math.Floor(max(0, fails-b.failsFrom).Seconds() * b.rps * b.failing)
	unsafe := 0.0
	if b.unsafeFrom > 0 && since >= b.unsafeFrom {
		unsafe = 1
	}
	return [3]float64{requests, failed, unsafe}
}

// Sample implements metrics.Provider over the counters. The cursor is the moment up to which they were read.
func (w *world) Sample(ctx context.Context, request metrics.Request) (metrics.Samples, error) {
	since := w.since()
	if w.source != nil {
		if err := w.source(since); err != nil {
			return metrics.Samples{}, err
		}
	}
	from := since
	if len(request.Cursor) > 0 {
		if err := json.Unmarshal(request.Cursor, &from); err != nil {
			return metrics.Samples{}, err
		}
	}
	cursor, _ := json.Marshal(since)
	out := metrics.Samples{At: t0.Add(since), Cursor: cursor, Metrics: map[string]analysis.Sample{}, Behind: w.behind}
	delta := func(b behaviour) (errs, safety analysis.Counts, requests float64) {
		was, is := b.counters(from), b.counters(since)
		n := is[0] - was[0]
		return analysis.Counts{N: n, X: is[1] - was[1]}, analysis.Counts{N: n, X: is[2] - was[2]}, n
	}
	var errs, safety analysis.Sample
	errs.Stable, safety.Stable, out.Requests.Stable = delta(w.stable)
	errs.Canary, safety.Canary, out.Requests.Canary = delta(w.canary)
	out.Metrics["error_rate"], out.Metrics["safety_violations"] = errs, safety
	if w.takes > 0 {
		bounds := []float64{w.takes.Seconds() * 0.99, w.takes.Seconds()}
		out.Metrics["p95_latency"] = analysis.Sample{
			Stable: analysis.Counts{N: out.Requests.Stable, Buckets: []float64{0, out.Requests.Stable, 0}},
			Canary: analysis.Counts{N: out.Requests.Canary, Buckets: []float64{0, out.Requests.Canary, 0}}, Bounds: bounds,
		}
	}
	w.mu.Lock()
	share := w.weight.Fraction()
	if w.share != nil {
		share = w.share(since)
	}
	begun := 20 * (since - from).Seconds()
	out.Conversations = rollout.Requests{Stable: begun * (1 - share), Canary: begun * share}
	w.samples++
	n := w.samples
	w.mu.Unlock()
	if w.onSample != nil {
		w.onSample(n)
	}
	return out, ctx.Err()
}

// Capabilities implements traffic.Driver.
func (w *world) Capabilities() traffic.Capabilities {
	return traffic.Capabilities{Step: 100, Lease: true, Mirror: w.mirrors}
}

// Apply implements traffic.Driver: it refuses another owner and an older revision.
func (w *world) Apply(_ context.Context, route rollout.Route) error {
	since := w.since()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.plane != nil {
		if err := w.plane(since); err != nil {
			return err
		}
	}
	if w.owner != "" && w.owner != route.Owner || route.Revision < w.revision {
		return &traffic.OwnershipLost{Agent: route.Agent, Owner: w.owner, Revision: w.revision}
	}
	w.applied = append(w.applied, route)
	w.weight, w.owner, w.revision, w.canaries, w.expired = route.Weight, route.Owner, route.Revision, route.Canary, false
	w.mirror = route.Mirror
	return nil
}

// Read implements traffic.Driver.
func (w *world) Read(_ context.Context, route rollout.Route) (traffic.Observed, error) {
	since := w.since()
	w.mu.Lock()
	defer w.mu.Unlock()
	if route.Agent != "support-agent" {
		return traffic.Observed{}, &traffic.Rejected{Reason: fmt.Sprintf("no agent %s, there is support-agent", route.Agent)}
	}
	if w.plane != nil {
		if err := w.plane(since); err != nil {
			return traffic.Observed{}, err
		}
	}
	return traffic.Observed{
		Agent: route.Agent, Stable: "v41", Canary: w.canaries, Weight: w.weight, Effective: w.weight, Owner: w.owner, Revision: w.revision,
		Versions: w.versions, LeaseExpired: w.expired, Changed: w.changed, Mirror: w.mirror, SideEffects: w.effects,
	}, nil
}

// List implements traffic.Driver.
func (w *world) List(ctx context.Context) ([]traffic.Observed, error) {
	seen, err := w.Read(ctx, rollout.Route{Agent: "support-agent"})
	return []traffic.Observed{seen}, err
}

// notifier counts what it tells.
type notifier struct {
	told []notify.Request
	err  error
}

func (n *notifier) Notify(_ context.Context, r notify.Request) (notify.Thread, error) {
	n.told = append(n.told, r)
	if n.err != nil {
		return nil, n.err
	}
	return notify.Thread(fmt.Sprintf(`{"parent":%q}`, r.Notice.ID)), nil
}

// workflowsFunc looks workflows up.
type workflowsFunc func(id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error)

func (f workflowsFunc) DescribeWorkflowExecution(_ context.Context, id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return f(id, run)
}

func nobody(string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	return nil, errors.New("nobody was to be looked up")
}

func spec() rollout.Spec {
	return rollout.Spec{
		Agent: "support-agent", Stable: "v41", Canary: "v42",
		Traffic: rollout.Traffic{Driver: "router", Target: "default", Lease: rollout.Duration(2 * time.Minute), OnRollback: rollout.Evict},
		Metrics: rollout.Metrics{
			Provider: "router", Target: "default", Interval: rollout.Duration(10 * time.Second),
			NoDataTimeout: rollout.Duration(5 * time.Minute), OnNoData: rollout.PolicyPause,
		},
		Stages: []rollout.Stage{
			{Name: "initial", Weight: 500, Duration: rollout.Duration(10 * time.Minute), MinRequests: 50, AutoRollback: true},
			{Name: "half", Weight: 5000, Duration: rollout.Duration(10 * time.Minute), AutoRollback: true},
		},
	}
}

// judged is an error rate that may not rise by half, no safety violation at all, and an outage of both arms.
func judged(rollout.Spec) (analysis.Config, error) {
	rate, err := analysis.ParseCheck("error_rate_increase < 0.5")
	safe, err2 := analysis.ParseCheck("safety_violations == 0")
	outage, err3 := analysis.ParseCondition("stable.error_rate > 0.5")
	var known []analysis.Metric
	for _, name := range []string{"error_rate", "safety_violations"} {
		m, _ := analysis.Preset(name)
		known = append(known, m)
	}
	return analysis.Config{
		Method: analysis.Threshold, Alpha: 0.01, Beta: 0.05, Floor: 0.001, Advance: analysis.AdvanceEstimate, Metrics: known,
		Checks: []analysis.RoleCheck{
			{Check: rate, Role: analysis.RoleGuard, Stage: analysis.EveryStage}, {Check: safe, Role: analysis.RoleGuard, Stage: analysis.EveryStage},
		},
		FreezeWhen: []analysis.Condition{outage}, PollsPerWindow: 100,
	}, errors.Join(err, err2, err3)
}

// config is Activities' over a world.
func (w *world) config() Config {
	return Config{
		Drivers:   map[string]Targets[traffic.Driver]{"router": {"default": w}},
		Providers: map[string]Targets[metrics.Provider]{"router": {"default": w}},
		Notifiers: Notifiers{Log: &notifier{}},
		Workflows: workflowsFunc(nobody), CheckSpec: func(rollout.Spec) error { return nil }, Analysis: judged, Clock: w,
	}
}

func route() rollout.Route {
	return rollout.Route{
		Driver: "router", Target: "default", Agent: "support-agent", Stable: "v41", Canary: "v42", Weight: 500,
		Owner: owner, Revision: 3, Lease: rollout.Duration(2 * time.Minute), OnRollback: rollout.Evict,
	}
}

// request asks to watch the first stage for ten minutes.
func request() rollout.ObserveRequest {
	return rollout.ObserveRequest{
		Spec: spec(), Route: route(), Slice: rollout.Duration(10 * time.Minute), Gate: true, Remaining: rollout.Duration(10 * time.Minute),
	}
}

// attempt is one try of an activity, with what its worker goes through.
type attempt struct {
	name      string
	ctx       context.Context // nil: it lives
	heartbeat json.RawMessage // of the attempt before
	stop      chan struct{}

	beats []json.RawMessage // every heartbeat
}

func (try *attempt) run(t rapid.TB, config Config, argument any, result any) error {
	t.Helper()
	a, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := suite.NewTestActivityEnvironment()
	ctx := try.ctx
	if ctx == nil {
		ctx = context.Background()
	}
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx, Interceptors: []interceptor.WorkerInterceptor{&beats{try: try}}})
	if try.heartbeat != nil {
		env.SetHeartbeatDetails(try.heartbeat)
	}
	if try.stop != nil {
		env.SetWorkerStopChannel(try.stop)
	}
	a.Register(env)
	value, err := env.ExecuteActivity(try.name, argument)
	if err != nil || result == nil {
		return err
	}
	if err := value.Get(result); err != nil {
		t.Fatalf("read the answer of %s: %v", try.name, err)
	}
	return nil
}

// observe watches one slice in one attempt.
func (w *world) observe(t rapid.TB, r rollout.ObserveRequest) rollout.ObserveResult {
	t.Helper()
	var out rollout.ObserveResult
	if err := (&attempt{name: "Observe"}).run(t, w.config(), r, &out); err != nil {
		t.Fatalf("observe: %v", err)
	}
	return out
}

// beats notes every heartbeat, also those that the SDK would keep for later.
type beats struct {
	interceptor.WorkerInterceptorBase
	interceptor.ActivityInboundInterceptorBase
	interceptor.ActivityOutboundInterceptorBase
	try *attempt
}

func (b *beats) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	b.ActivityInboundInterceptorBase.Next = next
	return inbound{b}
}

type inbound struct{ *beats }

func (b inbound) Init(out interceptor.ActivityOutboundInterceptor) error {
	b.ActivityOutboundInterceptorBase.Next = out
	return b.ActivityInboundInterceptorBase.Next.Init(outbound(b))
}

func (b inbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	return b.ActivityInboundInterceptorBase.Next.ExecuteActivity(ctx, in)
}

type outbound struct{ *beats }

func (b outbound) RecordHeartbeat(ctx context.Context, details ...any) {
	raw, err := json.Marshal(details[0])
	if err != nil {
		panic(err)
	}
	b.try.beats = append(b.try.beats, raw)
	b.ActivityOutboundInterceptorBase.Next.RecordHeartbeat(ctx, details...)
}
