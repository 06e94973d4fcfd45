package simulate

import (
	"fmt"
	"maps"
	"slices"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
)

// bases are what is assumed of the metrics that Aviary knows: an agent that answers within seconds, fails now and then, and is rated by every tenth
// user. A quantile's base is the median of a lognormal.
func bases() map[string]world.Metric {
	return map[string]world.Metric{
		"error_rate":           {Base: 0.01},
		"task_completion_rate": {Base: 0.90},
		"tool_error_rate":      {Base: 0.02},
		"safety_violations":    {Base: 0},
		"p50_latency":          {Base: 2, Spread: 0.8},
		"p95_latency":          {Base: 2, Spread: 0.8},
		"p99_latency":          {Base: 2, Spread: 0.8},
		"time_to_first_token":  {Base: 0.5, Spread: 0.6},
		"cost_per_task":        {Base: 0.04, Spread: 1.41},
		"tokens_per_task":      {Base: 2000, Spread: 1},
		"user_satisfaction":    {Base: 3.98, Share: 0.1, Ratings: []float64{0.05, 0.07, 0.13, 0.35, 0.40}},
	}
}

// ofKind are what is assumed of a metric of a rollout file's own.
func ofKind() map[analysis.Kind]world.Metric {
	return map[analysis.Kind]world.Metric{
		analysis.Ratio:    {Base: 0.02},
		analysis.Count:    {Base: 0.001},
		analysis.Mean:     {Base: 1, Spread: 1},
		analysis.Quantile: {Base: 1, Spread: 0.8},
		analysis.Value:    {Base: 1, Spread: 0.1},
	}
}

// defaultRPS is the traffic of both versions together, in requests a second.
const defaultRPS = 10

// For is a world in which a rollout's metrics are what is assumed of them, and both versions are alike. Errors are those of the rollout.
func For(spec rollout.Spec) (world.World, error) {
	cfg, err := config.AnalysisConfig(spec)
	if err != nil {
		return world.World{}, fmt.Errorf("make a world up: %w", err)
	}
	w := world.World{RPS: defaultRPS}
	known := bases()
	for _, m := range cfg.Metrics {
		if m.Name == analysis.TotalRequests { // the traffic itself
			continue
		}
		made, ok := known[m.Name]
		_, redefined := spec.Metrics.Definitions[m.Name]
		if !ok || redefined {
			made = ofKind()[m.Kind]
			if m.Better == analysis.Higher && m.Kind == analysis.Ratio {
				made.Base = 1 - made.Base
			}
		}
		made.Metric = m
		if m.Kind == analysis.Quantile {
			made.Bounds = world.FineBounds()
		}
		w.Metrics = append(w.Metrics, made)
	}
	return w, nil
}

// names are those of the world's metrics, in order.
func names(w world.World) []string {
	all := map[string]bool{}
	for _, m := range w.Metrics {
		all[m.Name] = true
	}
	return slices.Sorted(maps.Keys(all))
}
