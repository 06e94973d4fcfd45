package simulate

import (
	"context"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
)

const week = `
agent: support-agent
stable: v41
canary: v42
rollback_criteria: {max_error_increase: 0.1, max_completion_drop: 0.05, max_latency_increase: 0.5, max_safety_violations: 0}
canary_stages:
  - {name: few, weight: 0.05, duration: 24h, min_requests: 50}
  - {name: some, weight: 0.2, duration: 72h, min_requests: 50}
  - {name: half, weight: 0.5, duration: 72h}
  - {name: all, weight: 1.0}
`

func spec(t testing.TB, text string) rollout.Spec {
	t.Helper()
	s, err := config.Rollout("rollout.yaml", []byte(text), config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func options(t testing.TB, text string, change func(*world.World)) Options {
	t.Helper()
	s := spec(t, text)
	w, err := For(s)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&w)
	}
	return Options{Spec: s, World: w, Seed: 1, Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
}

func run(t testing.TB, o Options) Outcome {
	t.Helper()
	out, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestZZ(t *testing.T) {
	begin := time.Now()
	out := run(t, options(t, week, nil))
	t.Log(time.Since(begin), out.Status.Phase, out.Status.Reason)
	for _, d := range out.Decisions {
		t.Log(d.At, d.Kind, d.Stage, d.Weight, d.Reason)
	}
	t.Log(out.Harm)
	begin = time.Now()
	out = run(t, options(t, week, func(w *world.World) {
		w.Regressions = []world.Regression{{Metric: "error_rate", Factor: 2, From: 72 * time.Hour}}
	}))
	t.Log(time.Since(begin), out.Status.Phase, out.Status.Reason)
	for _, d := range out.Decisions {
		t.Log(d.At, d.Kind, d.Stage, d.Weight, d.Reason)
	}
	t.Log(out.Harm)
}
