package cli

import (
	"encoding/json"
	"testing"

	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/analysis/plan"
	"github.com/aviary-rollouts/aviary/config"
)

// TestForetellUsesWhatWasLearnt: each thing that calibration learnt changes the plan.
func TestForetellUsesWhatWasLearnt(t *testing.T) {
	t.Parallel()
	path := drawingBoard(t)("rollout.yaml")
	spec, err := config.LoadRollout(path, config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := config.AnalysisConfig(spec)
	if err != nil {
		t.Fatal(err)
	}
	told := func(change func(*calibration.Result)) string {
		base, deviation, width := 0.02, 1.5, 0.1
		slow := 3.0
		r := calibration.Result{Traffic: calibration.Traffic{Mean: 20}, Metrics: []calibration.Metric{
			{Name: "error_rate", Base: &base, Share: 1}, {Name: "cost_per_task", Base: &base, Share: 1, Deviation: &deviation},
			{Name: "p95_latency", Base: &slow, Share: 1, Deviation: &deviation, Width: &width},
		}}
		if change != nil {
			change(&r)
		}
		p, err := foretell(spec, cfg, &r)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	usual := told(nil)
	for name, change := range map[string]func(*calibration.Result){
		"traffic":        func(r *calibration.Result) { r.Traffic.Mean = 200 },
		"base":           func(r *calibration.Result) { *r.Metrics[0].Base = 0.1 },
		"share":          func(r *calibration.Result) { r.Metrics[1].Share = 0.1 },
		"deviation":      func(r *calibration.Result) { *r.Metrics[1].Deviation = 5 },
		"width":          func(r *calibration.Result) { *r.Metrics[2].Width = 3 },
		"overdispersion": func(r *calibration.Result) { r.Overdispersion = map[string]float64{"error_rate": 40} },
		"cohort spread":  func(r *calibration.Result) { r.CohortSpread = map[string]float64{"error_rate": 0.3} },
	} {
		if told(change) == usual {
			t.Errorf("the plan is the same with another %s", name)
		}
	}

	stages := replayed(spec, cfg).Stages
	if len(stages) != 4 || stages[1].MinRequests != 50000 || stages[1].Weight != 1000 || stages[1].Duration.Hours() != 4 {
		t.Errorf("calibration replays %+v", stages)
	}
	if got := planned(spec, cfg); got.Criticality != plan.Criticality("conversational") || !got.Stages[2].Approval || got.Settle == nil || got.Interval == 0 {
		t.Errorf("plan is of %+v", got)
	}
}
