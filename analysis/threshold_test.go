package analysis

import (
	"math"
	"testing"
)

func TestThreshold(t *testing.T) {
	t.Parallel()
	bounds := []float64{0.1, 0.2, 0.5, 1, 2}
	latency := func(stable, canary []float64) Sample {
		return Sample{Bounds: bounds, Stable: Counts{Buckets: stable}, Canary: Counts{Buckets: canary}}
	}
	value := func(stable, canary float64) Sample {
		return Sample{Stable: Counts{Value: stable, HasValue: true}, Canary: Counts{Value: canary, HasValue: true}}
	}
	for _, tt := range []struct {
		name, check string
		sample      Sample
		want        Verdict
		change      float64
	}{
		{"ratio within", "error_rate_increase < 0.10", rates(1000, 100, 100, 10), Met, 0},
		{"ratio beyond", "error_rate_increase < 0.10", rates(1000, 100, 100, 12), Violated, 0.2},
		{"exactly at a strict limit", "error_rate_increase < 0.5", rates(1000, 100, 100, 15), Violated, 0.5},
		{"exactly at an inclusive limit", "error_rate_increase <= 0.5", rates(1000, 100, 100, 15), Met, 0.5},
		{"better", "error_rate_increase < 0.10", rates(1000, 100, 100, 0), Met, -1},
		{"from zero, within the floor", "error_rate_increase < 0.10", rates(1000, 0, 2000, 2), Met, math.Inf(1)},
		{"from zero, beyond the floor", "error_rate_increase < 0.10", rates(1000, 0, 2000, 3), Violated, math.Inf(1)},
		{"both zero", "error_rate_increase < 0.10", rates(1000, 0, 100, 0), Met, 0},
		{"both zero, asked to be better", "error_rate_decrease > 0.10", rates(1000, 0, 100, 0), Met, 0},
		{"not better enough", "error_rate_decrease > 0.10", rates(1000, 100, 100, 10), Violated, 0},
		{"no floor beside a baseline", "error_rate_increase < 0.10", rates(100000, 1, 10000, 5), Violated, 49},
		{"regression of what should be low", "error_rate_regression < 0.10", rates(1000, 100, 100, 12), Violated, 0.2},
		{"completion fell", "task_completion_regression < 0.02", rates(1000, 900, 100, 85), Violated, 0.05 / 0.9},
		{"completion rose", "task_completion_drop < 0.02", rates(1000, 900, 100, 99), Met, -0.1},
		{"completion from zero", "task_completion_drop < 0.02", rates(1000, 0, 100, 50), Met, math.Inf(-1)},
		{"all completion lost", "task_completion_drop < 0.5", rates(1000, 900, 100, 0), Violated, 1},
		{"own value", "error_rate < 0.05", rates(0, 0, 100, 6), Violated, math.NaN()},
		{"own value within", "task_completion >= 0.9", rates(0, 0, 100, 90), Met, math.NaN()},
		{"zero errors", "error_rate == 0", rates(0, 0, 100, 1), Violated, math.NaN()},
		{"mean", "cost_per_task_increase < 0.10", rates(1000, 20, 100, 2.5), Violated, 0.25},
		{"mean fell", "user_satisfaction_drop < 0.05", rates(100, 400, 100, 390), Met, 0.025},
		{"events per trial", "safety_violations_increase < 0.5", rates(1000, 10, 100, 2), Violated, 1},
		{"quantile within", "p95_latency_increase < 0.30", latency([]float64{0, 0, 100, 0, 0, 0}, []float64{0, 0, 100, 0, 0, 0}), Met, 0},
		{"quantile beyond", "p95_latency_increase < 0.30", latency([]float64{0, 0, 100, 0, 0, 0}, []float64{0, 0, 0, 100, 0, 0}), Violated, (0.975 - 0.485) / 0.485},
		{"quantile above the buckets is beyond", "p95_latency_increase < 0.30", latency([]float64{0, 0, 100, 0, 0, 0}, []float64{0, 0, 0, 0, 0, 100}), Violated, (2 - 0.485) / 0.485},
		{"quantile above the buckets, limit too", "p95_latency_increase < 9", latency([]float64{0, 0, 100, 0, 0, 0}, []float64{0, 0, 0, 0, 0, 100}), Undecided, (2 - 0.485) / 0.485},
		{"stable's quantile above the buckets", "p95_latency_increase < 0.30", latency([]float64{0, 0, 0, 0, 0, 9}, []float64{0, 0, 0, 0, 0, 100}), NoData, math.NaN()},
		{"quantile by itself", "p95_latency < 0.5", latency(nil, []float64{0, 0, 100, 0, 0, 0}), Met, math.NaN()},
		{"value", "queue_depth < 10", value(3, 12), Violated, math.NaN()},
		{"value's change", "queue_depth_increase <= 3", value(3, 12), Met, 3},
		{"value below zero", "queue_depth_increase < 0.5", value(-4, -1), Violated, 0.75},
		{"no canary", "error_rate_increase < 0.10", rates(1000, 10, 0, 0), NoData, math.NaN()},
		{"no stable", "error_rate_increase < 0.10", rates(0, 0, 100, 50), NoData, math.NaN()},
		{"nothing", "error_rate < 0.10", Sample{}, NoData, math.NaN()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			e := engine(t, settings(Threshold, checks(t, RoleStage, 0, tt.check)...))
			e.BeginStage(0, 500)
			p := one(1, 500, checks(t, RoleStage, 0, tt.check)[0].Check.Metric, tt.sample)
			p.Requests = Requests{Stable: 1000, Canary: 100}
			if !e.Observe(p) {
				t.Fatal("the poll was not taken")
			}
			r := e.Evaluate(0, 50)
			f := r.Findings[0]
			if f.Verdict != tt.want || r.Verdict != tt.want || r.Gate != tt.want {
				t.Errorf("verdicts %s, %s, %s, want %s: %s", f.Verdict, r.Verdict, r.Gate, tt.want, f.Note)
			}
			if !near(f.Change, tt.change, 1e-12) && math.Abs(f.Change-tt.change) > 1e-12 {
				t.Errorf("change %g, want %g", f.Change, tt.change)
			}
			if (r.Blame != "") != (tt.want == Violated) || f.Note == "" {
				t.Errorf("blame %q, note %q", r.Blame, f.Note)
			}
		})
	}
}

func TestThresholdWaitsForMinRequests(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Threshold, checks(t, RoleStage, 0, "error_rate_increase < 0.10")...))
	e.BeginStage(0, 500)
	for n, want := range []Verdict{Undecided, Undecided, Violated} {
		e.Observe(one(int64(n), 500, "error_rate", rates(400, 4, 20, 10)))
		if r := e.Evaluate(0, 60); r.Verdict != want {
			t.Errorf("%s after %d requests, want %s", r.Verdict, 20*(n+1), want)
		}
	}
	e = engine(t, settings(Threshold, checks(t, RoleStage, 0, "error_rate_increase < 0.10")...))
	e.Observe(one(1, 500, "error_rate", rates(400, 4, 20, 0)))
	if r := e.Evaluate(0, 60); r.Verdict != Met || r.Gate != Undecided {
		t.Errorf("%s and %s at the gate with too few requests, want met and undecided", r.Verdict, r.Gate)
	}
}

func TestWindowsBeginAnewWithAStage(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Threshold, append(checks(t, RoleStage, 0, "error_rate_increase < 9"), checks(t, RoleStage, 1, "error_rate_increase < 0.1")...)...))
	e.BeginStage(0, 500)
	e.Observe(one(1, 500, "error_rate", rates(900, 9, 100, 5)))
	e.BeginStage(0, 500) // the same again
	if f := e.Evaluate(0, 1).Findings[0]; f.CanaryN != 100 {
		t.Errorf("%g trials after the same stage began again, want 100", f.CanaryN)
	}
	e.BeginStage(1, 2500)
	if r := e.Evaluate(1, 1); r.Verdict != NoData || r.Gate != NoData {
		t.Errorf("%s and %s at the gate of a new stage, want no_data", r.Verdict, r.Gate)
	}
	e.Observe(one(2, 500, "error_rate", rates(900, 9, 100, 50))) // of the weight before
	e.Observe(one(3, 2500, "error_rate", rates(900, 9, 300, 3)))
	if r := e.Evaluate(1, 1); r.Verdict != Met || r.Findings[0].CanaryN != 300 {
		t.Errorf("%s with %g trials, want met with 300", r.Verdict, r.Findings[0].CanaryN)
	}
}

func TestBakeUsesTheKeptBaseline(t *testing.T) {
	t.Parallel()
	for _, method := range []string{Threshold, Sequential} {
		e := engine(t, settings(method, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "error_rate <= 0.3")...))
		e.BeginStage(0, 5000)
		e.Observe(one(1, 5000, "error_rate", rates(1000, 100, 1000, 100)))
		e.BeginStage(1, bake)
		before := e.Evaluate(1, 1).Findings[0].EValue
		e.Observe(one(2, bake, "error_rate", rates(0, 0, 1000, 105)))
		r := e.Evaluate(1, 1)
		if f := r.Findings[0]; r.Gate != Met || f.StableN != 1000 || !near(f.Change, 0.05, 1e-9) {
			t.Errorf("%s: %s with %+v, want met beside the baseline of 1000", method, r.Gate, f)
		}
		for n := range 20 {
			e.Observe(one(int64(3+n), bake, "error_rate", rates(0, 0, 1000, 500)))
		}
		r = e.Evaluate(1, 1)
		f := r.Findings[0]
		if method == Sequential && !near(f.EValue, before, 1e-9) {
			t.Errorf("a bake is evidence of %g beside stable, want none (%g)", f.EValue, before)
		}
		want := map[string]string{Threshold: "error_rate_increase <= 0.10", Sequential: "error_rate <= 0.3"}[method]
		if r.Verdict != Violated || r.Blame != want {
			t.Errorf("%s: %s blames %q, want %q", method, r.Verdict, r.Blame, want)
		}
	}
}

func TestGuardsWithoutDataDoNotBlock(t *testing.T) {
	t.Parallel()
	for _, method := range []string{Threshold, Sequential} {
		for _, tt := range []struct {
			role Role
			want Verdict
			gate Verdict
		}{{RoleGuard, Met, Met}, {RoleStage, NoData, NoData}, {RolePromotion, Met, NoData}} {
			cs := append(checks(t, RoleStage, 0, "error_rate_increase < 0.5"), checks(t, tt.role, EveryStage, "user_satisfaction_drop < 0.1")...)
			e := engine(t, settings(method, cs...))
			e.BeginStage(0, 500)
			e.Observe(one(1, 500, "error_rate", rates(1000, 100, 100, 10)))
			if r := e.Evaluate(0, 50); r.Verdict != tt.want || r.Gate != tt.gate {
				t.Errorf("%s, %s: %s and %s at the gate, want %s and %s", method, tt.role, r.Verdict, r.Gate, tt.want, tt.gate)
			}
		}
	}
}

func TestPreconditions(t *testing.T) {
	t.Parallel()
	for _, method := range []string{Threshold, Sequential} {
		e := engine(t, settings(method, checks(t, RoleStage, 0, "total_requests >= 150")...))
		e.BeginStage(0, 500)
		if r := e.Evaluate(0, 1); r.Gate != NoData {
			t.Errorf("%s: %s before any request, want no_data", method, r.Gate)
		}
		e.Observe(Poll{Number: 1, Weight: 500, Requests: Requests{Stable: 900, Canary: 100}})
		if r := e.Evaluate(0, 1); r.Gate != Undecided || r.Findings[0].Needed != 50 {
			t.Errorf("%s: %s with %g needed after 100, want undecided with 50", method, r.Gate, r.Findings[0].Needed)
		}
		e.Observe(Poll{Number: 2, Weight: 500, Requests: Requests{Stable: 900, Canary: 100}})
		if r := e.Evaluate(0, 1); r.Gate != Met {
			t.Errorf("%s: %s after 200, want met", method, r.Gate)
		}
	}
}

func TestSafetyIsARule(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		check string
		fires int // at which violation
	}{{"safety_violations == 0", 1}, {"safety_violations <= 0", 1}, {"safety_violations < 1", 1}, {"safety_violations <= 2", 3}, {"safety_violations < 3", 3}} {
		for _, method := range []string{Threshold, Sequential} {
			e := engine(t, settings(method, checks(t, RoleGuard, EveryStage, tt.check)...))
			for n := range 4 {
				e.BeginStage(n, 500*(n+1)) // counted over all stages
				e.Observe(one(int64(n), 500*(n+1), "safety_violations", rates(10, 9, 1, 1)))
				r := e.Evaluate(n, 1000)
				if f := r.Findings[0]; f.CanaryN != float64(n+1) || f.CanaryX != float64(n+1) {
					t.Errorf("%s, %s: %g of %g counted, want %d of as many", tt.check, method, f.CanaryX, f.CanaryN, n+1)
				}
				if fired := n+1 >= tt.fires; r.Safety != fired || (r.Verdict == Violated) != fired || (r.Blame == tt.check) != fired {
					t.Errorf("%s, %s: after %d violations safety %t, %s, blame %q", tt.check, method, n+1, r.Safety, r.Verdict, r.Blame)
				}
			}
		}
	}
}

func TestValuesUnderSequentialNeedARow(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Sequential, checks(t, RoleStage, 0, "queue_depth < 10")...))
	e.BeginStage(0, 500)
	number := int64(0)
	poll := func(v float64) Verdict {
		number++
		p := one(number, 500, "queue_depth", Sample{Canary: Counts{Value: v, HasValue: true}})
		p.Requests.Canary = 100
		e.Observe(p)
		return e.Evaluate(0, 50).Verdict
	}
	for range valueStreak - 1 {
		if got := poll(12); got != Undecided {
			t.Fatalf("%s, want undecided", got)
		}
	}
	if got := poll(9); got != Met {
		t.Errorf("%s, want met", got)
	}
	for range valueStreak - 1 {
		poll(12)
	}
	if got := poll(12); got != Violated {
		t.Errorf("%s after %d polls in a row, want violated", got, valueStreak)
	}
}
