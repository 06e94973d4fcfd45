package workflows

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// chain is a rollout over as many runs as it takes.
type chain struct {
	runs      int
	calls     []string
	notices   []string
	decisions []rollout.Decision
	status    rollout.Status
	worlds    []*world
}

// follow runs a rollout to its end, over every continue-as-new. Each run gets a world of its own, set up by prepare, which
// begins where the last one ended: since says how long the rollout had been going on by then.
func follow(t *testing.T, prepare func(w *world, since time.Duration)) chain {
	t.Helper()
	var c chain
	args := []any{spec()}
	var began, now time.Time
	for c.runs < 500 {
		w := newWorld(t)
		if c.runs == 0 {
			began, now = w.env.Now(), w.env.Now()
		}
		w.env.SetStartTime(now)
		prepare(w, now.Sub(began))
		w.run(args...)
		c.runs++
		c.worlds = append(c.worlds, w)
		c.calls = append(c.calls, w.calls...)
		for _, n := range w.notices {
			c.notices = append(c.notices, n.ID)
		}
		now = w.env.Now()
		var next *workflow.ContinueAsNewError
		if err := w.env.GetWorkflowError(); !errors.As(err, &next) {
			c.decisions, c.status = w.decisions(), w.result()
			return c
		}
		args = nil
		for _, p := range next.Input.Payloads {
			args = append(args, converter.NewRawValue(p))
		}
	}
	t.Fatalf("no end after %d runs", c.runs)
	return c
}

func TestContinueAsNewEqualsAnUninterruptedRun(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(w *world, since time.Duration){
		"promoted": func(*world, time.Duration) {},
		"paused and resumed": func(w *world, since time.Duration) {
			w.later(since, 10*time.Minute, func() { w.env.SignalWorkflow("pause", "lunch") })
			w.later(since, 5*time.Hour+7*time.Minute, func() { w.env.SignalWorkflow("resume", nil) })
		},
		"held and aborted": func(w *world, since time.Duration) {
			w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
				result, d := healthy(now, r)
				result.Gate, result.Finding = rollout.Undecided, rollout.FoundNothing
				return result, d
			}
			w.later(since, 4*time.Hour+7*time.Minute, func() { w.env.SignalWorkflow("abort", nil) })
		},
		"violated": func(w *world, _ time.Duration) { w.observe = findingAt(1, rollout.FoundViolation) },
		"metrics gone": func(w *world, since time.Duration) {
			w.observe = func(now time.Time, r rollout.ObserveRequest) (rollout.ObserveResult, time.Duration) {
				if r.SourceDown == "" && r.Stage == 0 {
					result := sees(r, rollout.FoundSource, time.Minute)
					result.SourceDown = "timeout"
					return result, time.Minute
				}
				return healthy(now, r)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := follow(t, prepare)
			split := follow(t, func(w *world, since time.Duration) {
				w.env.SetContinueAsNewSuggested(true)
				prepare(w, since)
			})
			if whole.runs != 1 || split.runs < 2 {
				t.Fatalf("%d and %d runs, want one and several", whole.runs, split.runs)
			}
			for what, d := range map[string]string{
				"calls": cmp.Diff(whole.calls, split.calls), "notices": cmp.Diff(whole.notices, split.notices),
				"decisions": cmp.Diff(whole.decisions, split.decisions), "status": cmp.Diff(whole.status, split.status),
			} {
				if d != "" {
					t.Errorf("%s (-whole +split):\n%s", what, d)
				}
			}
		})
	}
}

// later is at, in the time of the whole rollout; it is done by the run that is going on then.
func (w *world) later(since, d time.Duration, f func()) {
	if d >= since {
		w.at(d-since, f)
	}
}

func TestContinuesWhereAVersionWaits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.env.SetTargetWorkerDeploymentVersionChanged(true)
	w.run(spec())
	var next *workflow.ContinueAsNewError
	if err := w.env.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("ended with %v", err)
	}
	if next.InitialVersioningBehavior != workflow.ContinueAsNewVersioningBehaviorAutoUpgrade || next.WorkflowType.Name != CanaryName {
		t.Errorf("continues as %s with %v", next.WorkflowType.Name, next.InitialVersioningBehavior)
	}
	if d := cmp.Diff([]string{"SetWeight 5%", "Observe 5%", "SetWeight 25%"}, w.calls); d != "" {
		t.Errorf("not at a slice's boundary (-want +got):\n%s", d)
	}
}

// slow makes every notice take d, so that a run waits between its slices before it continues as new.
func slow(w *world, d time.Duration) {
	w.env.SetContinueAsNewSuggested(true)
	w.notify = func(int) (time.Duration, error) { return d, nil }
}

func TestNothingIsLostBetweenRuns(t *testing.T) {
	t.Parallel()
	for name, how := range map[string]func(w *world){
		"signal": func(w *world) { w.env.SignalWorkflow("abort", "now") },
		"update": func(w *world) { w.update("abort", "now", func(rollout.Status, string) {}) },
		"cancel": func(w *world) { w.env.CancelWorkflow() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			slow(w, time.Minute)
			between := 30*time.Minute + time.Second
			at := w.env.Now().Add(between)
			w.at(between, func() { how(w) })
			w.run(spec())
			if got := w.status(); !got.Ended.Equal(at) || got.Phase != rollout.Aborted && got.Phase != rollout.Canceled {
				t.Errorf("%s at %s, want an end at %s", got.Phase, got.Ended, at)
			}
			restored(t, w)
		})
	}
	t.Run("pause", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		slow(w, time.Minute)
		w.at(30*time.Minute+time.Second, func() { w.env.SignalWorkflow("pause", nil) })
		w.at(40*time.Minute, func() {
			if s := w.status(); s.Paused == nil || s.Weight != 2500 || w.tries["Observe"] != 2 {
				t.Errorf("%+v with %d slices", s, w.tries["Observe"])
			}
		})
		w.at(50*time.Minute, w.env.CancelWorkflow)
		w.run(spec())
		restored(t, w)
	})
}

func TestUntoldNoticesAreCarried(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	slow(w, 20*time.Minute)
	began := w.env.Now()
	w.run(spec())
	var next *workflow.ContinueAsNewError
	if err := w.env.GetWorkflowError(); !errors.As(err, &next) {
		t.Fatalf("ended with %v", err)
	}
	if waited := w.env.Now().Sub(began); waited != 30*time.Minute+moveOnWait {
		t.Errorf("continued after %s, want %s after the stage's end", waited, moveOnWait)
	}
	was, err := decodeCarried(converter.NewRawValue(next.Input.Payloads[1]))
	if err != nil {
		t.Fatal(err)
	}
	var ids []string
	for _, n := range was.Notices {
		ids = append(ids, n.ID[strings.LastIndex(n.ID, "/"):])
	}
	if d := cmp.Diff([]string{"/2", "/3"}, ids); d != "" {
		t.Errorf("carried notices (-want +got):\n%s", d)
	}
}

func TestThreadIsCarried(t *testing.T) {
	t.Parallel()
	split := follow(t, func(w *world, _ time.Duration) { w.env.SetContinueAsNewSuggested(true) })
	for i, w := range split.worlds[1:] {
		if len(w.threads) > 0 && !strings.Contains(w.threads[0], "posts") {
			t.Errorf("run %d began a thread of its own: %q", i+1, w.threads)
		}
	}
}

// TestCarriedStateOfAnotherVersionWaits: the canary may have traffic, so the task blocks until a worker comes that knows the
// state. The workflow must not end: nobody would restore.
func TestCarriedStateOfAnotherVersionWaits(t *testing.T) {
	t.Parallel()
	for name, carried := range map[string]any{
		"newer":   Carried{State: rollout.State{Version: rollout.StateVersion + 1, Spec: spec(), Phase: rollout.Observing}},
		"none":    map[string]any{},
		"garbage": raw("json/plain", "{{"),
		"list":    []int{1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run(spec(), carried)
			var panicked *temporal.PanicError
			if err := w.env.GetWorkflowError(); !errors.As(err, &panicked) || !strings.Contains(panicked.Error(), "carried state") {
				t.Errorf("ended with %v, want a panic, which blocks the task", err)
			}
			if len(w.calls) > 0 {
				t.Errorf("something was done: %q", w.calls)
			}
		})
	}
}

// refusedInput asserts that the workflow failed as InvalidRollout before it did anything.
func refusedInput(t *testing.T, w *world, reason string) {
	t.Helper()
	var refused *temporal.ApplicationError
	err := w.env.GetWorkflowError()
	if !errors.As(err, &refused) || refused.Type() != rollout.ErrInvalidRollout || !refused.NonRetryable() || !strings.Contains(refused.Message(), reason) {
		t.Errorf("ended with %v, want InvalidRollout with %q", err, reason)
	}
	if len(w.calls)+len(w.notices)+w.tries["Validate"] > 0 {
		t.Errorf("something was done: %q", w.calls)
	}
	if s := w.status(); s.Phase != rollout.Rejected || s.Reason == "" {
		t.Errorf("status %+v", s)
	}
}

func TestUndecodableInput(t *testing.T) {
	t.Parallel()
	for name, row := range map[string]struct {
		args   []any
		reason string
	}{
		"nothing":          {nil, "the input is missing"},
		"nil":              {[]any{nil}, "agent"},
		"null":             {[]any{raw("json/plain", "null")}, "agent"},
		"string":           {[]any{"support-agent"}, "can't be read"},
		"list":             {[]any{[]int{1}}, "can't be read"},
		"broken JSON":      {[]any{raw("json/plain", `{"agent": "a"`)}, "can't be read"},
		"bytes":            {[]any{[]byte("x")}, "can't be read"},
		"unknown encoding": {[]any{raw("binary/rot13", "nobeg")}, "can't be read"},
		"no agent":         {[]any{map[string]any{"canary": "v2"}}, "agent"},
		"bad agent":        {[]any{map[string]any{"agent": "../etc", "canary": "v2"}}, "../etc"},
		"no stages":        {[]any{map[string]any{"agent": "a"}}, "canary_stages"},
		"misspelt limit":   {[]any{map[string]any{"agent": "a", "rollback_criteria": map[string]any{"max_eror_increase": 0.1}}}, "max_eror_increase"},
		"duration in ns":   {[]any{map[string]any{"agent": "a", "canary_stages": []any{map[string]any{"duration": 3600}}}}, "30m"},
		"weight in %":      {[]any{map[string]any{"agent": "a", "canary_stages": []any{map[string]any{"weight": 5}}}}, "fraction"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.run(row.args...)
			refusedInput(t, w, row.reason)
		})
	}
}

// tctl and the UI send every number as a floating-point one.
func TestPlainJSONStartsARollout(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.run(map[string]any{
		"agent": "support-agent", "stable": "v41", "canary": "v42",
		"metrics": map[string]any{"interval": "10s", "no_data_timeout": "10m"},
		"canary_stages": []any{
			map[string]any{"name": "initial", "weight": float64(0.05), "duration": "10m", "min_requests": float64(50)},
			map[string]any{"name": "full", "weight": float64(1), "duration": "0s"},
		},
	})
	if got := w.result(); got.Phase != rollout.Promoted || !slices.Contains(w.calls, "SetWeight 5%") {
		t.Errorf("%s after %q", got.Phase, w.calls)
	}
	if got := fmt.Sprint(w.slices[0].Slice); got != "10m" {
		t.Errorf("watched for %s", got)
	}
}
