package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.temporal.io/sdk/client"

	"github.com/aviary-rollouts/aviary/internal/stack"
	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// quick is a rollout file with windows of seconds.
func quick(agentName, canary string) string {
	return fmt.Sprintf(`
agent: %s
stable: v41
canary: %s
traffic: {lease: 5s}
metrics: {interval: 300ms}
rollback_criteria: {max_safety_violations: 0, max_completion_drop: 0.10}
canary_stages:
  - {name: some, weight: 0.2, duration: 2s, min_requests: 50, checks: ["task_completion_drop < 0.10"]}
  - {name: half, weight: 0.5, duration: 2s, min_requests: 100, checks: ["task_completion_drop < 0.10"]}
  - {name: all, weight: 1.0}
`, agentName, canary)
}

// long is a rollout file with one stage that outlasts the test unless it ends it.
func long(agentName, stage string) string {
	return fmt.Sprintf(`
agent: %s
stable: v41
canary: v42
traffic: {lease: 5s}
metrics: {interval: 300ms, no_data_timeout: 10m}
rollback_criteria: {max_safety_violations: 0, max_error_increase: null, max_completion_drop: null, max_latency_increase: null}
canary_stages:
  - {name: watch, weight: 0.5, %s}
`, agentName, stage)
}

func TestGoodCanaryIsPromotedAndBadOneTakenBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{agents: []string{"fine", "broken"}})
	w.traffic("fine", 150)
	w.traffic("broken", 150)

	fine := w.file("fine.yaml", quick("fine", "v42"))
	out, code := w.starter("lint", "--live", fine)
	if code != 0 || !strings.Contains(out, "all traffic on v41") || !strings.Contains(out, "requests to fine v41") {
		t.Fatalf("what the good canary needs, by a worker: code %d:\n%s", code, out)
	}
	if out, code := w.starter("lint", "--live", w.file("none.yaml", quick("fine", "v99"))); code != 1 || !strings.Contains(out, "does not know version v99") {
		t.Fatalf("what a version that is not there needs, by a worker: code %d:\n%s", code, out)
	}
	out, code = w.starter("start", fine, "--watch")
	if code != 0 || !strings.Contains(out, "promoted") {
		t.Fatalf("the good canary ended with code %d:\n%s", code, out)
	}
	if r := w.route("fine"); r.Stable != "v42" || r.Weight != 0 || r.Canary != "" {
		t.Errorf("after the promotion the gateway says %+v", r)
	}
	out, code = w.starter("start", w.file("broken.yaml", quick("broken", "v43")), "--watch")
	if code != 3 || !strings.Contains(out, "task_completion_rate_drop") {
		t.Fatalf("the bad canary ended with code %d:\n%s", code, out)
	}
	if r := w.route("broken"); r.Stable != "v41" || r.EffectiveWeight != 0 {
		t.Errorf("after the rollback the gateway says %+v", r)
	}
	s, err := w.status("broken")
	if err != nil || s.Phase != rollout.RolledBack || len(s.Evidence) == 0 {
		t.Errorf("status is %+v, %v; want rolled_back with evidence", s, err)
	}
}

func TestAbortBySignalWithAPlainString(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	w.traffic("support-agent", 50)
	w.start(long("support-agent", "duration: 1h"))
	w.until("support-agent", "watching", func(s rollout.Status) bool { return s.Phase == rollout.Observing })
	if r := w.route("support-agent"); r.EffectiveWeight != 5000 {
		t.Fatalf("while watching the gateway says %+v", r)
	}
	ctx, cancel := w.ready()
	defer cancel()
	w.must(w.temporal.SignalWorkflow(ctx, workflows.WorkflowID("support-agent"), "", "abort", "it smells"))
	var end rollout.Status
	w.must(w.temporal.GetWorkflow(ctx, workflows.WorkflowID("support-agent"), "").Get(ctx, &end))
	if end.Phase != rollout.Aborted || !strings.Contains(end.Reason, "it smells") {
		t.Errorf("it ended as %s: %s", end.Phase, end.Reason)
	}
	if r := w.route("support-agent"); r.Weight != 0 || r.EffectiveWeight != 0 {
		t.Errorf("after the abort the gateway says %+v", r)
	}
}

func TestRenderedJSONStartsWithAPlainClient(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	w.traffic("support-agent", 100)
	out, code := w.starter("render", w.file("rollout.yaml", quick("support-agent", "v42")))
	if code != 0 {
		t.Fatalf("render ended with code %d:\n%s", code, out)
	}
	var loose map[string]any // as tctl reads it: every number is a float64
	w.must(json.Unmarshal([]byte(out), &loose))
	ctx, cancel := w.ready()
	defer cancel()
	run, err := w.temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.WorkflowID("support-agent"), TaskQueue: "aviary",
	}, "Canary", loose)
	w.must(err)
	var end rollout.Status
	w.must(run.Get(ctx, &end))
	if end.Phase != rollout.Promoted {
		t.Errorf("it ended as %s: %s", end.Phase, end.Reason)
	}
}

func TestSecondRolloutOfAnAgentIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	file := w.file("rollout.yaml", long("support-agent", "duration: 1h"))
	if out, code := w.starter("start", file); code != 0 {
		t.Fatalf("the first start ended with code %d:\n%s", code, out)
	}
	out, code := w.starter("start", file)
	if code != 1 || !strings.Contains(out, "canary/support-agent") {
		t.Errorf("the second start ended with code %d:\n%s", code, out)
	}
}

func TestBadInputIsRefusedBeforeTrafficMoves(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	out, code := w.starter("start", w.file("v99.yaml", quick("support-agent", "v99")), "--watch")
	if code == 0 || !strings.Contains(out, "v99") {
		t.Errorf("an unknown version ended with code %d:\n%s", code, out)
	}
	if r := w.route("support-agent"); r.Owner != "" {
		t.Errorf("traffic was touched: %+v", r)
	}
}

func TestWorkerTellsItsHealthAndMetrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, worldOptions{behavior: perfect()})
	w.traffic("support-agent", 50)
	w.start(long("support-agent", "duration: 1h"))
	w.watched("support-agent")
	for _, path := range []string{"/healthz", "/readyz"} {
		if code, body := w.get(path); code != http.StatusOK {
			t.Errorf("%s says %d: %s", path, code, body)
		}
	}
	w.eventually("the worker's metrics", func() error {
		_, body := w.get("/metrics")
		for _, want := range []string{"aviary_canary_weight", "aviary_poll_age_seconds", "aviary_verdicts_total", "temporal_"} {
			if !strings.Contains(body, want) {
				return fmt.Errorf("no %s", want)
			}
		}
		return nil
	})
}

func TestUIServes(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	d, err := stack.StartDevstack(ctx, t.TempDir(), "--port", "0", "--ui-port", "0")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Kill()
	resp, err := http.Get(d.UI)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	if resp.StatusCode != http.StatusOK || !strings.Contains(strings.ToLower(string(body)), "<!doctype html>") {
		t.Errorf("the UI says %d: %.200s", resp.StatusCode, body)
	}
	began := time.Now()
	if err := d.Stop(); err != nil {
		t.Errorf("it stopped after %s with %v", time.Since(began), err)
	}
}

// start starts a rollout without watching it.
func (w *world) start(text string) {
	w.t.Helper()
	if out, code := w.starter("start", w.file("rollout.yaml", text)); code != 0 {
		w.t.Fatalf("start ended with code %d:\n%s", code, out)
	}
}

// watched waits until the worker has taken its first position in the counters.
func (w *world) watched(agentName string) {
	w.t.Helper()
	w.eventually("the first poll of "+agentName, func() error {
		_, body := w.get("/metrics")
		if !strings.Contains(body, fmt.Sprintf("aviary_poll_age_seconds{agent=%q}", agentName)) {
			return fmt.Errorf("the worker has not polled yet")
		}
		return nil
	})
}

func (w *world) get(path string) (int, string) {
	resp, err := http.Get("http://" + w.worker.HTTP + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body)
}
