//go:build record

package workflows

import (
	"context"
	"flag"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/history/v1"
	"go.temporal.io/api/temporalproto"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/activities/notify"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Histories are recorded anew against a Temporal server that knows Aviary's search attributes, such as devstack:
//
//	bin/devstack --port 7233 --headless &
//	go test ./workflows -tags record -run TestRecord -address 127.0.0.1:7233
//
// A change of behaviour is a GetVersion in the workflow and new histories beside the old ones, which stay and go on replaying.
var (
	address  = flag.String("address", "127.0.0.1:7233", "Temporal server to record against")
	scenario = flag.String("scenario", ".", "record only the scenarios that match this pattern")
	out      = flag.String("out", "testdata", "directory to write to")
)

// script is one scenario: what the activities answer for its agent, and what people do meanwhile.
type script struct {
	input    any // nil: spec
	spec     func(*rollout.Spec)
	validate error
	observe  func(r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration)
	restore  func(try int) error
	notify   error
	unknown  bool // the namespace does not know the search attributes
	drive    func(p *people)
}

// scripts are the scenarios, by the name of their file.
func scripts() map[string]script {
	all := map[string]script{
		"promoted":      {},
		"violated":      {observe: recorded(findingAt(1, rollout.FoundViolation)), unknown: true},
		"notifier-down": {notify: temporal.NewNonRetryableApplicationError("channel not found", "NotifierError", nil)},
		"refused":       {validate: temporal.NewApplicationError("unknown target", rollout.ErrInvalidRollout)},
		"unreadable":    {input: "no rollout at all"},
		"held": {
			spec: func(s *rollout.Spec) {
				s.Stages[0].MaxHold, s.Stages[0].OnHold = rollout.Duration(3*time.Second), rollout.PolicyRollback
			},
			observe: func(r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
				result := sees(r, rollout.FoundNothing, time.Second)
				result.Gate = rollout.Undecided
				return result, time.Second
			},
		},
		"continued": {
			spec: func(s *rollout.Spec) { s.Stages[0].Duration = rollout.Duration(8 * time.Second) },
			drive: func(p *people) {
				p.await(rollout.Observing)
				for range 4 { // 4 MiB of history, and the server suggests to continue as new
					p.signal(rollout.SignalApprove, strings.Repeat("x", 1200*1024))
				}
			},
		},
	}
	maps.Copy(all, driven())
	maps.Copy(all, sharing())
	return all
}

// driven are the scenarios that people take part in.
func driven() map[string]script {
	long := func(s *rollout.Spec) { s.Stages[0].Duration = rollout.Duration(time.Minute) }
	return map[string]script{
		"safety-violation-while-paused": {spec: long,
			observe: func(r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
				if r.Gate {
					return sees(r, rollout.FoundNothing, time.Second), 2 * time.Second
				}
				return sees(r, rollout.FoundSafety, time.Second), 2 * time.Second
			},
			drive: func(p *people) { p.await(rollout.Observing); p.signal(rollout.SignalPause, rollout.Ask{By: "ada"}) },
		},
		"aborted-by-a-plain-string": {spec: long, drive: func(p *people) {
			p.await(rollout.Observing)
			p.signal(rollout.SignalAbort, "too slow")
		}},
		"aborted-without-a-payload": {spec: long, drive: func(p *people) {
			p.await(rollout.Observing)
			p.signal(rollout.SignalPause, converter.NewRawValue(&commonpb.Payload{Data: []byte{0xff}}))
			p.update(rollout.SignalResume)
			p.bare(rollout.SignalAbort)
		}},
		"canceled": {spec: long, drive: func(p *people) { p.await(rollout.Observing); p.cancel() }},
		"restore-blocked-then-retried": {spec: long,
			restore: func(try int) error {
				if try < 3 {
					return broken(rollout.ErrDriver)
				}
				return nil
			},
			drive: func(p *people) {
				p.await(rollout.Observing)
				p.signal(rollout.SignalViolation, map[string]any{"by": "guard"})
				p.await(rollout.RestoreBlocked)
				p.update(rollout.SignalRetry, nil)
				p.signal(rollout.SignalRetry, nil)
			},
		},
		"updates-and-approval": {
			spec: func(s *rollout.Spec) { s.Stages[0].Approval = rollout.ApprovalRequired },
			drive: func(p *people) {
				p.await(rollout.Observing)
				p.update(rollout.SignalPause, rollout.Ask{By: "ada", Reason: "lunch"})
				p.update(rollout.SignalResume, "back")
				p.await(rollout.AwaitingApproval)
				p.update(rollout.SignalApprove, rollout.Ask{By: "ada"})
				p.update(rollout.SignalPromote, rollout.Ask{By: "ada", Full: true})
			},
		},
	}
}

func recorded(see func(time.Time, rollout.ObserveRequest) (rollout.ObserveResult, time.Duration)) func(rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
	return func(r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
		result, d := see(time.Now(), r)
		return result, min(d, time.Second)
	}
}

// brief is a rollout of seconds.
func brief(name string, s script) any {
	if s.input != nil {
		return s.input
	}
	b := spec()
	b.Agent = name
	for i := range b.Stages[:2] {
		b.Stages[i].Duration = rollout.Duration(time.Second)
	}
	if s.spec != nil {
		s.spec(&b)
	}
	return b
}

func TestRecord(t *testing.T) {
	match := regexp.MustCompile(*scenario)
	logger := log.NewStructuredLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	c, err := client.Dial(client.Options{HostPort: *address, Identity: "recorder", Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	l := &lab{scripts: scripts(), tries: map[string]int{}}
	w := worker.New(c, TaskQueue, worker.Options{Identity: "recorder", WorkerStopTimeout: time.Second})
	Register(w, workflow.VersioningBehaviorUnspecified)
	l.register(w)
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	t.Run("all", func(t *testing.T) {
		for name, s := range l.scripts {
			if !match.MatchString(name) {
				continue
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
				defer cancel()
				options := StartOptions(rollout.Spec{Agent: name, Stable: "v41", Canary: "v42"})
				run, err := c.ExecuteWorkflow(ctx, options, CanaryName, brief(name, s))
				if err != nil {
					t.Fatal(err)
				}
				if s.drive != nil {
					s.drive(&people{t: t, ctx: ctx, client: c, id: run.GetID()})
				}
				first := run.GetRunID()
				if err := run.Get(ctx, nil); err != nil {
					t.Logf("ended with %v", err)
				}
				save(ctx, t, c, run.GetID(), first, name)
			})
		}
	})
	if match.MatchString("sweep") {
		recordSweep(t, c)
	}
}

func recordSweep(t *testing.T, c client.Client) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 2 { // created, then brought up to date
		if err := EnsureSweep(ctx, c, TaskQueue, time.Hour); err != nil {
			t.Fatal(err)
		}
	}
	run, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: SweepID + "-recorded", TaskQueue: TaskQueue}, SweepName)
	if err != nil {
		t.Fatal(err)
	}
	var swept Swept
	if err := run.Get(ctx, &swept); err != nil || len(swept.Restored) != 1 || len(swept.Left) != 1 {
		t.Fatalf("swept %+v, %v", swept, err)
	}
	save(ctx, t, c, run.GetID(), run.GetRunID(), "sweep")
}

// save writes the histories of a run and of those that continue it.
func save(ctx context.Context, t *testing.T, c client.Client, id, runID, name string) {
	for n := 1; runID != ""; n++ {
		var h history.History
		events := c.GetWorkflowHistory(ctx, id, runID, false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for events.HasNext() {
			e, err := events.Next()
			if err != nil {
				t.Fatal(err)
			}
			if s := e.GetWorkflowExecutionSignaledEventAttributes(); s != nil {
				shorten(s.Input)
			}
			h.Events = append(h.Events, e)
		}
		text, err := temporalproto.CustomJSONMarshalOptions{Indent: " "}.Marshal(&h)
		if err != nil {
			t.Fatal(err)
		}
		file := name
		if n > 1 {
			file += "-" + string(rune('0'+n))
		}
		host, err := os.Hostname()
		if err != nil {
			t.Fatal(err)
		}
		scrubbed := strings.ReplaceAll(string(text), host, "recorder")
		if err := os.WriteFile(filepath.Join(*out, file+".json"), []byte(scrubbed+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d events", file, len(h.Events))
		runID = h.Events[len(h.Events)-1].GetWorkflowExecutionContinuedAsNewEventAttributes().GetNewExecutionRunId()
	}
}

// shorten drops the ballast of a signal, which no decision depends on.
func shorten(input *commonpb.Payloads) {
	for _, p := range input.GetPayloads() {
		if len(p.Data) > 10_000 {
			p.Data = []byte(`"ballast"`)
		}
	}
}

// people drive a rollout through a plain Temporal client.
type people struct {
	t      *testing.T
	ctx    context.Context
	client client.Client
	id     string
}

func (p *people) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatal(err)
	}
}

func (p *people) signal(s rollout.Signal, payload any) {
	p.must(p.client.SignalWorkflow(p.ctx, p.id, "", string(s), payload))
}

func (p *people) cancel() { p.must(p.client.CancelWorkflow(p.ctx, p.id, "")) }

// bare signals without any payload at all, as tctl does.
func (p *people) bare(s rollout.Signal) {
	_, err := p.client.WorkflowService().SignalWorkflowExecution(p.ctx, &workflowservice.SignalWorkflowExecutionRequest{
		Namespace: client.DefaultNamespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: p.id}, SignalName: string(s),
	})
	p.must(err)
}

func (p *people) update(s rollout.Signal, payload ...any) {
	handle, err := p.client.UpdateWorkflow(p.ctx, client.UpdateWorkflowOptions{
		WorkflowID: p.id, UpdateName: string(s), Args: payload, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	p.must(err)
	var status rollout.Status
	p.must(handle.Get(p.ctx, &status))
	p.t.Logf("%s: %s", s, status.Phase)
}

func (p *people) await(phase rollout.Phase) {
	for {
		value, err := p.client.QueryWorkflow(p.ctx, p.id, "", QueryStatus)
		p.must(err)
		var s rollout.Status
		p.must(value.Get(&s))
		if s.Phase == phase {
			return
		}
		select {
		case <-p.ctx.Done():
			p.t.Fatalf("phase is %s, want %s", s.Phase, phase)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// refuses is an agent that is never restored.
const refuses = "refuses"

// lab is the activities of all scenarios.
type lab struct {
	scripts map[string]script
	mu      sync.Mutex
	tries   map[string]int
}

func (l *lab) register(w worker.ActivityRegistry) {
	apply := func(context.Context, rollout.Route) error { return nil }
	for name, f := range map[string]any{
		"Validate": l.validate, "Observe": l.observe, "Restore": l.restore, "Notify": l.notify,
		"SetWeight": apply, "Finalize": apply, "Orphans": l.orphans,
	} {
		w.RegisterActivityWithOptions(f, activity.RegisterOptions{Name: name})
	}
}

func (l *lab) validate(_ context.Context, s rollout.Spec) (validated, error) {
	return validated{SearchAttributes: !l.scripts[s.Agent].unknown}, l.scripts[s.Agent].validate
}

func (l *lab) observe(ctx context.Context, r rollout.ObserveRequest) (rollout.ObserveResult, error) {
	see := l.scripts[r.Spec.Agent].observe
	if see == nil {
		see = func(r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) { return healthy(time.Now(), r) }
	}
	result, d := see(r)
	end := time.After(d)
	for {
		activity.RecordHeartbeat(ctx, r.Stage)
		select {
		case <-end:
			return result, nil
		case <-ctx.Done():
			return result, ctx.Err()
		case <-time.After(time.Second):
		}
	}
}

func (l *lab) restore(_ context.Context, r rollout.Route) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tries[r.Agent]++
	if r.Agent == refuses {
		return broken(rollout.ErrDriver)
	}
	if f := l.scripts[r.Agent].restore; f != nil {
		return f(l.tries[r.Agent])
	}
	return nil
}

func (l *lab) notify(_ context.Context, r notify.Request) (notify.Thread, error) {
	return notify.Thread(`{"channel":"C1"}`), l.scripts[r.Notice.Agent].notify
}

func (l *lab) orphans(context.Context) ([]rollout.Route, error) {
	return []rollout.Route{
		{Driver: "router", Target: "default", Agent: "left-behind", Stable: "v1", Canary: "v2", Rollback: true},
		{Driver: "router", Target: "default", Agent: refuses, Stable: "v1", Canary: "v2", Rollback: true},
	}, nil
}
