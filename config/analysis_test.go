package config

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

func TestAnalysisConfig(t *testing.T) {
	t.Parallel()
	spec, err := Rollout("r.yaml", []byte(`
metrics:
  provider: prometheus
  interval: 30s
  definitions:
    error_rate: {kind: ratio, better: lower, events: errors_total, trials: requests_total}
    queue_depth: {kind: value, better: lower, query: "max(queue)"}
    unused: {kind: value, better: lower, query: "max(queue)"}
analysis:
  {alpha: 0.02, beta: 0.1, floor: 0.01, method: threshold, settle: 90s, overdispersion: {error_rate: 9.3}, cohort_spread: {task_completion_rate: 0.05}}
rollback_criteria: {max_error_increase: 0.2}
promotion_criteria: {max_completion_regression: 0.02}
freeze_when: ["stable.tool_error_rate > 0.2"]
canary_stages:
  - {name: a, weight: 0.1, duration: 10m, checks: ["queue_depth < 5"]}
  - {name: b, weight: 0.5, duration: 20m, checks: ["task_completion_drop < 0.1"]}
`), versions)
	if err != nil {
		t.Fatal(err)
	}
	if s := spec.Analysis.Settle; s == nil || s.Std() != 90*time.Second {
		t.Errorf("settle %v, want 90s", s)
	}
	got, err := AnalysisConfig(spec)
	if err != nil {
		t.Fatal(err)
	}
	preset := func(name string) analysis.Metric {
		m, ok := analysis.Preset(name)
		if !ok {
			t.Fatalf("no preset %s", name)
		}
		return m
	}
	check := func(text string, role analysis.Role, stage int) analysis.RoleCheck {
		c, err := analysis.ParseCheck(text)
		if err != nil {
			t.Fatal(err)
		}
		return analysis.RoleCheck{Check: c, Role: role, Stage: stage}
	}
	freeze, err := analysis.ParseCondition("stable.tool_error_rate > 0.2")
	if err != nil {
		t.Fatal(err)
	}
	want := analysis.Config{
		Method: "threshold", Alpha: 0.02, Beta: 0.1, Floor: 0.01, Advance: "estimate", PollsPerWindow: 60, Stages: 2,
		Overdispersion: map[string]float64{"error_rate": 9.3}, CohortSpread: map[string]float64{"task_completion_rate": 0.05},
		Metrics: []analysis.Metric{
			{Name: "error_rate", Kind: analysis.Ratio, Better: analysis.Lower}, // in place of the preset
			preset("task_completion_rate"), preset("safety_violations"), preset("tool_error_rate"),
			{Name: "queue_depth", Kind: analysis.Value, Better: analysis.Lower},
		},
		Checks: []analysis.RoleCheck{
			check("safety_violations <= 0", analysis.RoleGuard, analysis.EveryStage),
			check("error_rate_increase <= 0.2", analysis.RoleGuard, analysis.EveryStage),
			check("queue_depth < 5", analysis.RoleStage, 0),
			check("task_completion_drop < 0.1", analysis.RoleStage, 1),
			check("task_completion_rate_regression <= 0.02", analysis.RolePromotion, analysis.EveryStage),
		},
		FreezeWhen: []analysis.Condition{freeze},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := got.Validate(); err != nil {
		t.Errorf("the statistics refuse it: %v", err)
	}
}

func TestAnalysisConfigNamesThePath(t *testing.T) {
	t.Parallel()
	spec, err := Rollout("r.yaml", []byte(minimal), versions)
	if err != nil {
		t.Fatal(err)
	}
	spec.Stages[0].Checks = []string{"error_rate < 0.5", "what"}
	if _, err := AnalysisConfig(spec); err == nil || !strings.HasPrefix(err.Error(), "canary_stages[0].checks[1]: ") {
		t.Errorf("got %v, want it to name canary_stages[0].checks[1]", err)
	}
	spec.Stages[0].Checks = nil
	spec.FreezeWhen = []string{"nonsense"}
	if _, err := AnalysisConfig(spec); err == nil || !strings.HasPrefix(err.Error(), "freeze_when[0]: ") {
		t.Errorf("got %v, want it to name freeze_when[0]", err)
	}
}

func TestPolls(t *testing.T) {
	t.Parallel()
	spec, err := Rollout("r.yaml", []byte("canary_stages: [{name: a, weight: 1}]\n"), versions)
	if err != nil {
		t.Fatal(err)
	}
	if got := polls(spec); got != 1 {
		t.Errorf("without durations: %d polls, want 1", got)
	}
	spec.Metrics.Interval = 0
	if got := polls(spec); got != 1 {
		t.Errorf("without an interval: %d polls, want 1", got)
	}
}

// TestSettle: what is left out stays left out, so that the default is the worker's to find, and 0 stays 0.
func TestSettle(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]*rollout.Duration{
		"{}": nil, "{settle: 0}": new(rollout.Duration(0)), "{settle: 0s}": new(rollout.Duration(0)), "{settle: 59s}": new(rollout.Duration(59 * time.Second)),
	} {
		spec, err := Rollout("r.yaml", []byte("analysis: "+text+"\n"+minimal), versions)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if diff := cmp.Diff(want, spec.Analysis.Settle); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
		rendersToItself(t, spec)
	}
}

// TestLadder: every kind of rollout that can prove something can climb.
func TestLadder(t *testing.T) {
	t.Parallel()
	spec, err := Rollout("r.yaml", []byte("analysis: {advance: ladder}\n"+minimal), versions)
	if err != nil {
		t.Fatal(err)
	}
	got, err := AnalysisConfig(spec)
	if err != nil || got.Advance != analysis.AdvanceLadder || got.Stages != 1 {
		t.Errorf("advance %s over %d stages, %v; want ladder over 1", got.Advance, got.Stages, err)
	}
}

// A bake is no stage of the ladder: stable has no traffic to be compared with.
func TestSharedStages(t *testing.T) {
	t.Parallel()
	spec := rollout.Spec{Stages: []rollout.Stage{{Weight: 500}, {Weight: 5000}, {Weight: rollout.FullWeight}}}
	if n := sharedStages(spec); n != 2 {
		t.Errorf("%d stages in which both versions have traffic, want 2", n)
	}
}
