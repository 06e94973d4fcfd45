package activities_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	. "github.com/aviary-rollouts/aviary/activities"
	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// checkError holds an error against its type on the wire, whether it is final, and its delay.
func checkError(t *testing.T, err error, kind string, final bool, delay time.Duration) {
	t.Helper()
	var app *temporal.ApplicationError
	if !errors.As(err, &app) {
		t.Fatalf("got %v, want %s", err, kind)
	}
	if app.Type() != kind || app.NonRetryable() != final || app.NextRetryDelay() != delay {
		t.Errorf("got %s (final %t, again in %s): %s; want %s (final %t, again in %s)",
			app.Type(), app.NonRetryable(), app.NextRetryDelay(), app.Message(), kind, final, delay)
	}
}

func TestRouteErrors(t *testing.T) {
	t.Parallel()
	lost := &traffic.OwnershipLost{Agent: "support-agent", Owner: "canary/x/1", Revision: 7}
	rejected := &traffic.Rejected{Reason: "no version v42"}
	for _, tc := range []struct {
		name  string
		err   error
		kind  string
		final bool
		delay time.Duration
		again bool // Restore tries it again
	}{
		{"lost", fmt.Errorf("apply: %w", lost), rollout.ErrOwnershipLost, true, 0, false},
		{"rejected", fmt.Errorf("apply: %w", rejected), rollout.ErrInvalidRollout, true, 0, true},
		{"busy", &traffic.Busy{RetryAfter: 7 * time.Second, Err: errors.New("503")}, rollout.ErrDriver, false, 7 * time.Second, false},
		{"busy for too long", &traffic.Busy{RetryAfter: time.Hour, Err: errors.New("503")}, rollout.ErrDriver, false, 5 * time.Minute, false},
		{"passing", errors.New("connection refused"), rollout.ErrDriver, false, 0, false},
		{"timeout", context.DeadlineExceeded, rollout.ErrDriver, false, 0, false},
	} {
		for _, name := range []string{"SetWeight", "Restore", "Finalize"} {
			t.Run(tc.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				w := newWorld()
				applied := false
				w.plane = func(time.Duration) error { // the route is refused, but reading works
					if applied {
						return nil
					}
					applied = true
					return tc.err
				}
				err := (&attempt{name: name}).run(t, w.config(), route(), nil)
				if name == "Restore" && tc.again {
					checkError(t, err, rollout.ErrDriver, false, 0)
					return
				}
				checkError(t, err, tc.kind, tc.final, tc.delay)
			})
		}
	}
}

func TestRestore(t *testing.T) {
	t.Parallel()
	t.Run("it restores", func(t *testing.T) {
		t.Parallel()
		w := newWorld()
		r := route()
		r.Weight, r.Revision, r.Rollback = 0, 4, true
		if err := (&attempt{name: "Restore"}).run(t, w.config(), r, nil); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]rollout.Route{r}, w.applied); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("an agent that does not exist", func(t *testing.T) {
		t.Parallel()
		w := newWorld()
		w.plane = func(time.Duration) error { return &traffic.Rejected{Reason: "no agent x"} }
		r := route()
		r.Agent = "x"
		checkError(t, (&attempt{name: "Restore"}).run(t, w.config(), r, nil), rollout.ErrInvalidRollout, true, 0)
	})
	t.Run("a target that does not exist", func(t *testing.T) {
		t.Parallel()
		r := route()
		r.Target = "x"
		checkError(t, (&attempt{name: "Restore"}).run(t, newWorld().config(), r, nil), rollout.ErrInvalidRollout, true, 0)
	})
	t.Run("canceled while the plane hangs", func(t *testing.T) {
		t.Parallel()
		w := newWorld()
		ctx, cancel := context.WithCancel(context.Background())
		released := make(chan struct{})
		defer close(released)
		config := w.config()
		config.Drivers["router"]["default"] = hanging{w, func() { cancel(); <-released }}
		if err := (&attempt{name: "Restore", ctx: ctx}).run(t, config, route(), nil); err == nil {
			t.Error("a hung call was waited for")
		}
	})
}

// hanging is a driver whose Apply does not heed its context.
type hanging struct {
	*world
	hang func()
}

func (h hanging) Apply(context.Context, rollout.Route) error {
	h.hang()
	return nil
}

// running is a lookup that finds a workflow in a status.
func running(status enums.WorkflowExecutionStatus, firstRun string) workflowsFunc {
	return func(id, run string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
		if !strings.HasPrefix(id, "canary/") || run != "" {
			return nil, fmt.Errorf("looked up %q %q", id, run)
		}
		return &workflowservice.DescribeWorkflowExecutionResponse{
			WorkflowExecutionInfo: &workflowpb.WorkflowExecutionInfo{Status: status, FirstRunId: firstRun},
		}, nil
	}
}

func failing(err error) workflowsFunc {
	return func(string, string) (*workflowservice.DescribeWorkflowExecutionResponse, error) { return nil, err }
}

const otherRun = "0195c1de-0000-7000-8000-00000000beef"

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		world  func(*world)
		config func(*Config)
		spec   func(*rollout.Spec)
		kind   string // empty: it is valid
		want   string
	}{
		"fine":               {},
		"an unknown version": {spec: func(s *rollout.Spec) { s.Canary = "v43" }, kind: rollout.ErrInvalidRollout, want: "version v43 of support-agent, it has v41, v42"},
		"an unknown stable":  {spec: func(s *rollout.Spec) { s.Stable = "v40" }, kind: rollout.ErrInvalidRollout, want: "version v40"},
		"another stable":     {spec: func(s *rollout.Spec) { s.Stable, s.Canary = "v42", "v41" }, kind: rollout.ErrInvalidRollout, want: "stable version of support-agent is v41"},
		"versions not known": {world: func(w *world) { w.versions = nil }, spec: func(s *rollout.Spec) { s.Canary = "v43" }},
		"an unknown agent":   {spec: func(s *rollout.Spec) { s.Agent = "x" }, kind: rollout.ErrInvalidRollout, want: "there is support-agent"},
		"too fine a weight":  {spec: func(s *rollout.Spec) { s.Stages[0].Weight = 250 }, kind: rollout.ErrInvalidRollout, want: "stage initial has weight 2.5%, but router can only set multiples of 1%"},
		"no mirror":          {spec: func(s *rollout.Spec) { s.Stages[0].Weight, s.Stages[0].Mirror = 0, 1000 }, kind: rollout.ErrInvalidRollout, want: "stage initial mirrors traffic, which router can't"},
		"a mirror": {
			world: func(w *world) { w.mirrors = true },
			spec:  func(s *rollout.Spec) { s.Stages[0].Weight, s.Stages[0].Mirror = 0, 1000 },
		},
		"side effects": {
			world: func(w *world) { w.mirrors, w.effects = true, true },
			spec:  func(s *rollout.Spec) { s.Stages[0].Weight, s.Stages[0].Mirror = 0, 1000 }, kind: rollout.ErrInvalidRollout,
			want: "the requests of support-agent have side effects",
		},
		"an unknown driver":   {spec: func(s *rollout.Spec) { s.Traffic.Driver = "istio" }, kind: rollout.ErrInvalidRollout, want: `unknown traffic driver "istio", this worker has router`},
		"an unknown target":   {spec: func(s *rollout.Spec) { s.Traffic.Target = "eu" }, kind: rollout.ErrInvalidRollout, want: `unknown target "eu" of traffic driver router, this worker has default`},
		"an unknown provider": {spec: func(s *rollout.Spec) { s.Metrics.Provider = "x" }, kind: rollout.ErrInvalidRollout, want: "this worker has router"},
		"an unknown Slack":    {spec: func(s *rollout.Spec) { s.Notify.Slack = &rollout.SlackNotice{Target: "eu"} }, kind: rollout.ErrInvalidRollout, want: "this worker has none"},
		"broken rules": {
			config: func(c *Config) {
				c.CheckSpec = func(rollout.Spec) error { return errors.New("agent: is missing") }
			}, kind: rollout.ErrInvalidRollout, want: "agent: is missing",
		},
		"broken analysis": {
			config: func(c *Config) {
				c.Analysis = func(rollout.Spec) (analysis.Config, error) { return analysis.Config{}, nil }
			}, kind: rollout.ErrInvalidRollout, want: "method",
		},
		"the plane is down": {
			world: func(w *world) { w.plane = func(time.Duration) error { return errors.New("connection refused") } },
			kind:  rollout.ErrDriver, want: "connection refused",
		},
		"the source is down": {
			world: func(w *world) { w.source = func(time.Duration) error { return errors.New("connection refused") } },
			kind:  rollout.ErrProvider, want: "connection refused",
		},
		"the source is busy": {
			world: func(w *world) {
				w.source = func(time.Duration) error { return &metrics.Busy{RetryAfter: time.Second, Err: errors.New("429")} }
			},
			kind: rollout.ErrProvider, want: "429",
		},
		"the source has no such metric": {
			world: func(w *world) {
				w.source = func(time.Duration) error { return &metrics.Rejected{Reason: "no error_rate"} }
			},
			kind: rollout.ErrInvalidRollout, want: "no error_rate",
		},
		"another rollout": {
			world:  func(w *world) { w.owner = "canary/other/" + otherRun },
			config: func(c *Config) { c.Workflows = running(enums.WORKFLOW_EXECUTION_STATUS_RUNNING, otherRun) },
			kind:   rollout.ErrInvalidRollout, want: "in a rollout already: canary/other",
		},
		"another rollout that is over": {
			world:  func(w *world) { w.owner = "canary/other/" + otherRun },
			config: func(c *Config) { c.Workflows = running(enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, otherRun) },
		},
		"another rollout, and Temporal does not tell": {
			world:  func(w *world) { w.owner = "canary/other/" + otherRun },
			config: func(c *Config) { c.Workflows = failing(serviceerror.NewUnavailable("down")) },
			kind:   rollout.ErrDriver, want: "look up who holds support-agent",
		},
		"somebody else's canary": {
			world: func(w *world) { w.owner = "a-script" },
			kind:  rollout.ErrInvalidRollout, want: "held by a-script",
		},
		"somebody else's canary whose lease ran out": {world: func(w *world) { w.owner, w.expired = "a-script", true }},
		"somebody else's former canary":              {world: func(w *world) { w.owner, w.weight = "a-script", 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, s := newWorld(), spec()
			w.owner = ""
			if tc.world != nil {
				tc.world(w)
			}
			config := w.config()
			if tc.config != nil {
				tc.config(&config)
			}
			if tc.spec != nil {
				tc.spec(&s)
			}
			config.SearchAttributes = func(context.Context) bool { return true }
			var got ValidateResult
			err := (&attempt{name: "Validate"}).run(t, config, s, &got)
			if tc.kind == "" {
				if err != nil || !got.SearchAttributes {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			delay := time.Duration(0)
			if name == "the source is busy" {
				delay = time.Second
			}
			checkError(t, err, tc.kind, tc.kind == rollout.ErrInvalidRollout, delay)
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want it to say %q", err, tc.want)
			}
			if len(w.applied) > 0 {
				t.Errorf("traffic moved: %v", w.applied)
			}
		})
	}
}

// TestValidateKnowsItself: a route that an earlier run under the same workflow ID left behind is no other rollout.
func TestValidateKnowsItself(t *testing.T) {
	t.Parallel()
	for id, valid := range map[string]bool{"canary/support-agent": true, "canary/other": false} {
		w := newWorld()
		config := w.config()
		config.Workflows = running(enums.WORKFLOW_EXECUTION_STATUS_RUNNING, owner[strings.LastIndex(owner, "/")+1:])
		a, err := New(config)
		if err != nil {
			t.Fatal(err)
		}
		var suite testsuite.WorkflowTestSuite
		suite.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
		env := suite.NewTestWorkflowEnvironment()
		env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: id, TaskQueue: "aviary"})
		a.Register(env)
		env.ExecuteWorkflow(func(ctx workflow.Context) error {
			ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
			return workflow.ExecuteActivity(ctx, "Validate", spec()).Get(ctx, nil)
		})
		if err := env.GetWorkflowError(); (err == nil) != valid {
			t.Errorf("%s, while canary/support-agent holds the agent: %v", id, err)
		}
	}
}

func TestOrphans(t *testing.T) {
	t.Parallel()
	run := owner[strings.LastIndex(owner, "/")+1:]
	for name, tc := range map[string]struct {
		world  func(*world)
		lookup workflowsFunc
		want   bool
	}{
		"terminated":                  {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, run), want: true},
		"completed":                   {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_COMPLETED, run), want: true},
		"timed out":                   {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_TIMED_OUT, run), want: true},
		"gone":                        {lookup: failing(serviceerror.NewNotFound("no such workflow")), want: true},
		"a later rollout of the name": {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_RUNNING, otherRun), want: true},
		"running":                     {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_RUNNING, run)},
		"between two runs":            {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW, run)},
		"an old server":               {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_RUNNING, "")},
		"no status":                   {lookup: running(enums.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED, run)},
		"Temporal is down":            {lookup: failing(serviceerror.NewUnavailable("down"))},
		"no such namespace":           {lookup: failing(serviceerror.NewNamespaceNotFound("x"))},
		"no weight":                   {world: func(w *world) { w.weight = 0 }},
		"mirrored alone":              {world: func(w *world) { w.weight, w.mirror = 0, 1000 }, lookup: running(enums.WORKFLOW_EXECUTION_STATUS_TERMINATED, run), want: true},
		"no owner":                    {world: func(w *world) { w.owner = "" }},
		"a script's":                  {world: func(w *world) { w.owner = "a-script" }},
		"not quite Aviary's":          {world: func(w *world) { w.owner = "canary/support-agent/latest" }},
		"somebody's with slashes":     {world: func(w *world) { w.owner = "team/canary/x/" + otherRun }},
		"the plane is down":           {world: func(w *world) { w.plane = func(time.Duration) error { return errors.New("down") } }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, good := newWorld(), newWorld()
			if tc.world != nil {
				tc.world(w)
			}
			good.owner = "canary/good/" + otherRun
			config := w.config()
			config.Drivers["router"]["other"] = good
			config.Workflows = workflowsFunc(func(id, r string) (*workflowservice.DescribeWorkflowExecutionResponse, error) {
				if id == "canary/good" {
					return nil, serviceerror.NewNotFound("gone") // another plane's: found in any case
				}
				if tc.lookup == nil {
					return nobody(id, r)
				}
				if id != "canary/support-agent" {
					t.Errorf("looked up %s", id)
				}
				return tc.lookup(id, r)
			})
			var got []rollout.Route
			if err := (&attempt{name: "Orphans"}).run(t, config, nil, &got); err != nil {
				t.Fatal(err)
			}
			var want []rollout.Route
			back := rollout.Route{
				Driver: "router", Target: "default", Agent: "support-agent", Stable: "v41", Canary: "v42", Owner: owner, Revision: 4,
				OnRollback: rollout.Evict, Rollback: true,
			}
			if tc.want {
				want = append(want, back)
			}
			back.Target, back.Owner = "other", good.owner
			want = append(want, back)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNewNeedsItsParts(t *testing.T) {
	t.Parallel()
	for want, change := range map[string]func(*Config){
		"CheckSpec":     func(c *Config) { c.CheckSpec = nil },
		"Analysis":      func(c *Config) { c.Analysis = nil },
		"Workflows":     func(c *Config) { c.Workflows = nil },
		"Notifiers.Log": func(c *Config) { c.Notifiers.Log = nil },
	} {
		config := newWorld().config()
		change(&config)
		if _, err := New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("without %s: %v", want, err)
		}
	}
}
