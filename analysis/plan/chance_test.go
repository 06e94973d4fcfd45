package plan

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// The raw rule, simulated by the plan and by the engine itself, takes identical versions back about as often.
func TestForetellsTheRawRule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		check, metric string
		base          Base
		least         int64
	}{
		{"error_rate_increase < 0.5", "error_rate", Base{Value: 0.01}, 300},
		{"task_completion_drop < 0.05", "task_completion_rate", Base{Value: 0.9}, 100},
		{"p95_latency_increase < 0.3", "p95_latency", Base{Value: 7.46, Spread: 0.8, Width: 0.09}, 100},
		{"cost_per_task_increase < 0.3", "cost_per_task", Base{Value: 0.04, Spread: 1.41}, 100},
	} {
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel()
			r := asked(t, []string{tt.check}, Stage{Name: "one", Weight: 500, Duration: time.Hour, MinRequests: tt.least})
			r.Config.Method = analysis.Threshold
			p := made(t, r, Traffic{RPS: 10, Metrics: map[string]Base{tt.metric: tt.base}})
			w := world.Default()
			w.Diurnal = 0
			m := *w.Metric(tt.metric)
			m.Bounds = world.FineBounds()
			w.Metrics = []world.Metric{m}
			const runs = 200
			failed := 0
			for i := range runs {
				e, err := analysis.New(r.Config)
				if err != nil {
					t.Fatal(err)
				}
				e.BeginStage(0, 500)
				stream := w.Stream(rand.New(rand.NewPCG(3, uint64(i))))
				for k := range 360 {
					at := time.Duration(k) * r.Interval
					e.Observe(stream.Poll(int64(k), at, at+r.Interval, 500))
					if e.Peek(0, tt.least).Verdict == analysis.Violated {
						failed++
						break
					}
				}
			}
			seen := float64(failed) / runs
			t.Logf("%.2f foretold, %.2f seen", *p.Threshold, seen)
			if math.Abs(*p.Threshold-seen) > 0.12 {
				t.Errorf("%.2f foretold and %.2f seen, want a difference of at most 0.12", *p.Threshold, seen)
			}
			if p.Alpha != 0 || p.Decides != (*p.Threshold <= rawTooOften) {
				t.Errorf("alpha %g, decides %t: a raw rule has no such promise", p.Alpha, p.Decides)
			}
		})
	}
}

// How often an estimate of identical versions is beyond its limit at the end of a stage.
func TestForetellsHolds(t *testing.T) {
	t.Parallel()
	for _, check := range []string{"error_rate_increase < 0.2", "task_completion_drop < 0.005", "p95_latency_increase < 0.03", "cost_per_task_increase < 0.03"} {
		t.Run(check, func(t *testing.T) {
			t.Parallel()
			r := asked(t, []string{check}, Stage{Name: "one", Weight: 1000, Duration: time.Hour})
			name := r.Config.Checks[0].Check.Metric
			base := map[string]Base{"error_rate": {Value: 0.01}, "task_completion_rate": {Value: 0.9}, "p95_latency": {Value: 7.46, Spread: 0.8}, "cost_per_task": {Value: 0.04, Spread: 1.41}}[name]
			told := made(t, r, Traffic{RPS: 5, Metrics: map[string]Base{name: base}}).Stages[0].Held
			w := world.Default()
			w.RPS, w.Diurnal = 5, 0
			m := *w.Metric(name)
			m.Bounds = world.FineBounds()
			w.Metrics = []world.Metric{m}
			const runs = 400
			held := 0
			for i := range runs {
				e, err := analysis.New(r.Config)
				if err != nil {
					t.Fatal(err)
				}
				e.BeginStage(0, 1000)
				stream := w.Stream(rand.New(rand.NewPCG(5, uint64(i))))
				const step = 5 * time.Minute
				for k := range 12 {
					at := time.Duration(k) * step
					e.Observe(stream.Poll(int64(k), at, at+step, 1000))
				}
				if e.Peek(0, 0).Gate == analysis.Undecided {
					held++
				}
			}
			seen := float64(held) / runs
			t.Logf("%.2f foretold, %.2f seen", told, seen)
			if math.Abs(told-seen) > 0.08 {
				t.Errorf("%.2f foretold and %.2f seen, want a difference of at most 0.08", told, seen)
			}
		})
	}
}
