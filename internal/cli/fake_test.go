package cli

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

var update = flag.Bool("update", false, "write the golden files anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// run is a rollout in the fake Temporal.
type run struct {
	id, runID string
	status    rollout.Status
	decisions []rollout.Decision
	series    []rollout.Point
	how       enumspb.WorkflowExecutionStatus
	heartbeat any
}

// fake is a Temporal in memory. Its fields are set by tests before and, through the clock, while a command runs.
type fake struct {
	mu       sync.Mutex
	runs     []*run    // the latest last
	worker   bool      // somebody answers queries and updates
	polled   time.Time // when a worker last polled; zero: never
	down     bool
	refuse   string // answer to any update
	signals  []string
	asks     []rollout.Ask
	queue    string
	listings []string
	remarks  []rollout.Remark // of a check
	checks   []string         // the agents that were checked
}

var errDown = serviceerror.NewUnavailable("connection refused")

func (f *fake) find(id, runID string) *run {
	for _, r := range slices.Backward(f.runs) {
		if r.id == id && (runID == "" || r.runID == runID) {
			return r
		}
	}
	return nil
}

func payload(v any) *commonpb.Payload {
	p, err := converter.GetDefaultDataConverter().ToPayload(v)
	if err != nil {
		panic(err)
	}
	return p
}

func (r *run) info() *workflowpb.WorkflowExecutionInfo {
	info := &workflowpb.WorkflowExecutionInfo{
		Execution: &commonpb.WorkflowExecution{WorkflowId: r.id, RunId: r.runID}, Status: r.how, TaskQueue: workflows.TaskQueue,
		StartTime: timestamppb.New(r.status.Started),
		Memo: &commonpb.Memo{Fields: map[string]*commonpb.Payload{
			workflows.MemoAgent: payload(r.status.Agent), workflows.MemoStable: payload(r.status.Stable), workflows.MemoCanary: payload(r.status.Canary),
			workflows.MemoPhase: payload(r.status.Phase), workflows.MemoStage: payload(r.status.Stage), workflows.MemoWeight: payload(r.status.Weight),
		}},
	}
	if !r.status.Ended.IsZero() {
		info.CloseTime = timestamppb.New(r.status.Ended)
	}
	return info
}

func (f *fake) ExecuteWorkflow(_ context.Context, o client.StartWorkflowOptions, name any, args ...any) (client.WorkflowRun, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r := f.find(o.ID, ""); r != nil && r.how == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		if !o.WorkflowExecutionErrorWhenAlreadyStarted {
			return fakeRun{f, r}, nil
		}
		return nil, serviceerror.NewWorkflowExecutionAlreadyStarted("already started", "", r.runID)
	}
	spec := args[0].(rollout.Spec)
	if name == workflows.CheckName {
		f.checks, f.queue = append(f.checks, spec.Agent), o.TaskQueue
		return fakeRun{f, &run{id: o.ID}}, nil
	}
	r := &run{id: o.ID, runID: "run-" + string(rune('a'+len(f.runs))), how: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING}
	r.status = rollout.Status{Agent: spec.Agent, Stable: spec.Stable, Canary: spec.Canary, Phase: rollout.Validating, Started: noon, Stages: len(spec.Stages), Owner: r.id + "/" + r.runID}
	f.runs, f.queue = append(f.runs, r), o.TaskQueue
	return fakeRun{f, r}, nil
}

func (f *fake) GetWorkflow(_ context.Context, id, runID string) client.WorkflowRun {
	f.mu.Lock()
	defer f.mu.Unlock()
	return fakeRun{f, f.find(id, runID)}
}

func (f *fake) ListWorkflow(_ context.Context, request *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.listings = append(f.listings, request.GetQuery())
	out := &workflowservice.ListWorkflowExecutionsResponse{}
	for _, r := range slices.Backward(f.runs) {
		out.Executions = append(out.Executions, r.info())
	}
	return out, nil
}

func (f *fake) DescribeWorkflowExecution(_ context.Context, id, runID string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, errDown
	}
	r := f.find(id, runID)
	if r == nil {
		return nil, serviceerror.NewNotFound("workflow not found")
	}
	out := &workflowservice.DescribeWorkflowExecutionResponse{WorkflowExecutionInfo: r.info()}
	if r.heartbeat != nil {
		out.PendingActivities = []*workflowpb.PendingActivityInfo{{
			ActivityType: &commonpb.ActivityType{Name: "Observe"}, HeartbeatDetails: &commonpb.Payloads{Payloads: []*commonpb.Payload{payload(r.heartbeat)}},
		}}
	}
	return out, nil
}

func (f *fake) DescribeTaskQueue(context.Context, string, enumspb.TaskQueueType) (*workflowservice.DescribeTaskQueueResponse, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := &workflowservice.DescribeTaskQueueResponse{}
	if !f.polled.IsZero() {
		out.Pollers = []*taskqueuepb.PollerInfo{{LastAccessTime: timestamppb.New(f.polled)}}
	}
	return out, nil
}

func (f *fake) QueryWorkflow(_ context.Context, id, runID, query string, _ ...any) (converter.EncodedValue, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.find(id, runID)
	switch {
	case f.down:
		return nil, errDown
	case r == nil:
		return nil, serviceerror.NewNotFound("workflow not found")
	case !f.worker:
		return nil, serviceerror.NewFailedPrecondition("no poller seen for task queue recently, worker may be down")
	}
	answer := map[string]any{workflows.QueryStatus: r.status, workflows.QueryDecisions: r.decisions, workflows.QuerySeries: r.series}[query]
	return client.NewValue(&commonpb.Payloads{Payloads: []*commonpb.Payload{payload(answer)}}), nil
}

func (f *fake) UpdateWorkflow(_ context.Context, o client.UpdateWorkflowOptions) (client.WorkflowUpdateHandle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	r := f.find(o.WorkflowID, "")
	switch {
	case r == nil || r.how != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING:
		return nil, serviceerror.NewNotFound("workflow execution already completed")
	case !f.worker:
		return nil, client.NewWorkflowUpdateServiceTimeoutOrCanceledError(context.DeadlineExceeded)
	}
	f.asks = append(f.asks, o.Args[0].(rollout.Ask))
	return fakeUpdate{f, r}, nil
}

func (f *fake) SignalWorkflow(_ context.Context, id, _, signal string, _ any) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.find(id, "") == nil {
		return serviceerror.NewNotFound("workflow not found")
	}
	f.signals = append(f.signals, signal)
	return nil
}

func (*fake) Close() {}

// fakeRun is a handle on a run. The methods that nothing calls come from the nil interface.
type fakeRun struct {
	*fake
	of *run
}

func (r fakeRun) GetID() string                  { return r.of.id }
func (r fakeRun) GetRunID() string               { return r.of.runID }
func (r fakeRun) GetFirstExecutionRunID() string { return r.of.runID }
func (r fakeRun) Get(_ context.Context, into any) error {
	if remarks, ok := into.(*[]rollout.Remark); ok {
		*remarks = r.remarks
		return nil
	}
	if r.of.how != enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED {
		return errors.New("workflow execution error: " + r.of.how.String())
	}
	*into.(*rollout.Status) = r.of.status
	return nil
}
func (r fakeRun) GetWithOptions(ctx context.Context, into any, _ client.WorkflowRunGetOptions) error {
	return r.Get(ctx, into)
}

type fakeUpdate struct {
	*fake
	of *run
}

func (u fakeUpdate) WorkflowID() string { return u.of.id }
func (u fakeUpdate) RunID() string      { return u.of.runID }
func (u fakeUpdate) UpdateID() string   { return "update" }
func (u fakeUpdate) Get(_ context.Context, into any) error {
	if u.refuse != "" {
		return temporal.NewApplicationError(u.refuse, "")
	}
	*into.(*rollout.Status) = u.of.status
	return nil
}

// script is a clock on which the n-th Sleep is followed by the n-th step.
type script struct {
	mu    sync.Mutex
	now   time.Time
	steps []func()
}

func (c *script) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *script) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
	if len(c.steps) == 0 {
		return errors.New("slept more often than the test has steps")
	}
	c.steps[0]()
	c.steps = c.steps[1:]
	return ctx.Err()
}

// ran is the outcome of one command line.
type ran struct {
	code     int
	out, err string
}

// command runs one command line against f.
func command(ctx context.Context, f *fake, clock *script, change func(*Process), args ...string) ran {
	var out, errs bytes.Buffer
	p := Process{
		Out: &out, Err: &errs, User: "sam", Version: "v0.0.0-test", Zone: time.UTC, Clock: clock,
		Env:      []string{"TEMPORAL_CONFIG_FILE=/nonexistent"},
		Terminal: func() (int, int, bool) { return 0, 0, false },
		Dial:     func(context.Context, client.Options) (Temporal, error) { return f, nil },
	}
	if change != nil {
		change(&p)
	}
	code := Run(ctx, args, p)
	return ran{code, out.String(), errs.String()}
}

// golden compares got with a file of testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update writes it anew):\n%s", file, diff)
	}
}

func has(t *testing.T, where, text string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("%s lacks %q:\n%s", where, want, text)
		}
	}
}

func ptr(f float64) *float64 { return &f }

// observing is a rollout in the middle of its second stage.
func observing() *run {
	st := rollout.Status{
		Agent: "support-agent", Stable: "v41", Canary: "v42", Phase: rollout.Observing, Stage: "half", StageIndex: 1, Stages: 4,
		Weight: 2500, Started: noon.Add(-50 * time.Minute), Observed: rollout.Duration(18 * time.Minute), Duration: rollout.Duration(30 * time.Minute),
		Requests: rollout.Requests{Stable: 3912, Canary: 1288}, MinRequests: 2000, Verdict: rollout.Undecided, Owner: "canary/support-agent/run-1",
		Evidence: evidence(),
	}
	r := &run{id: "canary/support-agent", runID: "run-1", status: st, how: enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, decisions: timeline()}
	r.status.Last = &r.decisions[len(r.decisions)-1]
	for i := range 40 {
		f := float64(i)
		r.series = append(r.series, rollout.Point{
			At: noon.Add(time.Duration(i-40) * time.Minute), Weight: 2500, EValue: f * f / 100,
			Values: map[string][2]float64{"error_rate": {0.02, 0.02 + f/2000}},
		})
	}
	return r
}

func evidence() []rollout.Evidence {
	return []rollout.Evidence{
		{Check: "safety_violations <= 0", Metric: "safety_violations", Role: "guard", Verdict: rollout.Met, Stable: rollout.Arm{Estimate: ptr(0)}, Canary: rollout.Arm{Estimate: ptr(0)}},
		{Check: "error_rate_increase < 0.1", Metric: "error_rate", Role: "stage", Verdict: rollout.Undecided, Stable: rollout.Arm{N: 3912, X: 82, Estimate: ptr(0.021)}, Canary: rollout.Arm{N: 1288, X: 30, Estimate: ptr(0.0233)}, Change: ptr(0.1095), Limit: 0.1, EValue: ptr(1.82), Lower: ptr(-0.05), Upper: ptr(0.5), Needed: ptr(5400)},
		{Check: "p95_latency_increase <= 0.5", Metric: "p95_latency", Role: "guard", Verdict: rollout.Violated, Stable: rollout.Arm{N: 3912, Estimate: ptr(0.42)}, Canary: rollout.Arm{N: 1288, Estimate: ptr(1.25)}, Change: ptr(1.976), Limit: 0.5, EValue: ptr(412), Lower: ptr(1)},
		{Check: "task_completion > 0.9", Metric: "task_completion_rate", Role: "promotion", Verdict: rollout.NoData, Limit: 0.9, Note: "no tasks yet"},
	}
}

func timeline() []rollout.Decision {
	at := func(m int) time.Time { return noon.Add(time.Duration(m-50) * time.Minute) }
	return []rollout.Decision{
		{At: at(0), Kind: rollout.DecideStart, Phase: rollout.Validating, Stage: "initial", By: rollout.Aviary, Reason: "bring v42 to support-agent, now on v41"},
		{At: at(1), Kind: rollout.DecideShift, Phase: rollout.Observing, Stage: "initial", Weight: 500, By: rollout.Aviary, Reason: "the canary has 5% for at least 30m"},
		{At: at(31), Kind: rollout.DecideAdvance, Phase: rollout.Observing, Stage: "initial", Weight: 500, By: rollout.Aviary, Reason: "the stage is passed", Evidence: evidence()[:2]},
		{At: at(32), Kind: rollout.DecideShift, Phase: rollout.Observing, Stage: "half", Weight: 2500, By: rollout.Aviary, Reason: "the canary has 25% for at least 30m"},
	}
}

// ended is r at its end.
func ended(r *run, phase rollout.Phase, reason string) {
	r.how = enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED
	r.status.Phase, r.status.Reason, r.status.Ended, r.status.Weight = phase, reason, noon, 0
	if phase == rollout.Promoted {
		r.status.Weight = rollout.FullWeight
	}
	d := rollout.Decision{At: noon, Kind: rollout.DecideEnd, Phase: phase, Stage: r.status.Stage, Weight: r.status.Weight, By: rollout.Aviary, Reason: reason}
	r.decisions = append(slices.Clone(r.decisions), d)
	r.status.Last = &d
}

// file writes a rollout file and returns its name.
func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "rollout.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

const good = `agent: support-agent
stable: v41
canary: v42
canary_stages:
  - {name: initial, weight: 0.05, duration: 30m, min_requests: 50, checks: ["error_rate_increase < 0.10", "safety_violations == 0"]}
  - {name: half, weight: 0.5, duration: 2h, min_requests: 1000, approval: required}
  - {name: all, weight: 1.0}
`
