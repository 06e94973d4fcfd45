package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
)

// bursts is one poll's failures that come in geometric bursts of a mean size, up to n.
func bursts(r *rand.Rand, n, rate, size float64) float64 {
	x := 0.0
	for range int(poisson(r, n*rate/size)) {
		x += 1 + math.Floor(math.Log(1-r.Float64())/math.Log(1-1/size))
	}
	return min(n, x)
}

// Failures in bursts of 5 have φ = 9. Told so, a canary at its limit is kept; told nothing, it is rolled back more often than alpha allows.
func TestOverdispersion(t *testing.T) {
	t.Parallel()
	const rollouts, polls = 100, 600
	rolledBack := map[float64]int{}
	for _, phi := range []float64{1, 9} {
		cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...)
		cfg.Floor, cfg.Overdispersion = 0, map[string]float64{"error_rate": phi}
		for i := range rollouts {
			e, r := engine(t, cfg), rand.New(rand.NewPCG(71, uint64(i)))
			e.BeginStage(0, 2500)
			for n := range int64(polls) {
				e.Observe(one(n, 2500, "error_rate", rates(3000, bursts(r, 3000, 0.02, 5), 1000, bursts(r, 1000, 0.022, 5))))
				if e.Peek(0, 1).Verdict == Violated {
					rolledBack[phi]++
					break
				}
			}
		}
	}
	if binomialTail(rollouts, rolledBack[9], 0.01) < 1e-4 {
		t.Errorf("%d of %d rolled back with φ, too many at alpha 0.01", rolledBack[9], rollouts)
	}
	if binomialTail(rollouts, rolledBack[1], 0.01) > 1e-4 {
		t.Errorf("%d of %d rolled back without φ: the stream has no bursts to speak of", rolledBack[1], rollouts)
	}
	t.Logf("rolled back of %d: %v", rollouts, rolledBack)
}

// A cohort's users fail a little more often for ever. Told how much cohorts differ, it is not blamed on the canary.
func TestCohortSpread(t *testing.T) {
	t.Parallel()
	const rollouts, polls, spread = 100, 400, 0.1
	rolledBack := map[float64]int{}
	for _, told := range []float64{0, spread} {
		cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...)
		cfg.Floor, cfg.CohortSpread = 0, map[string]float64{"error_rate": told}
		for i := range rollouts {
			e, r := engine(t, cfg), rand.New(rand.NewPCG(72, uint64(i)))
			e.BeginStage(0, 2500)
			w := &world{r: r, perPoll: 4000, stableP: 0.05, canaryP: 0.05 * math.Exp(spread*r.NormFloat64())}
			for range polls {
				e.Observe(w.poll(2500))
				if e.Peek(0, 1).Verdict == Violated {
					rolledBack[told]++
					break
				}
			}
		}
	}
	if binomialTail(rollouts, rolledBack[spread], 0.01) < 1e-4 || binomialTail(rollouts, rolledBack[0], 0.01) > 1e-4 {
		t.Errorf("rolled back of %d: %v, want about none when told and some when not", rollouts, rolledBack)
	}
	t.Logf("rolled back of %d: %v", rollouts, rolledBack)
}

// The spread widens every limit on its side, whatever its form.
func TestCohortSpreadWidens(t *testing.T) {
	t.Parallel()
	wide := math.Exp(cohortQuantile * 0.1)
	for _, tt := range []struct {
		check                string
		worse, within        func(h hypothesis) float64
		wantWorse, wantOther float64
	}{
		{"error_rate_increase < 0.1", slope, slope, 1.1 * wide, 1.1 / wide},
		{"error_rate < 0.1", level, level, 0.1 * wide, 0.1 / wide},
		{"task_completion_regression < 0.1", slope, slope, 0.9 * wide, 0.9 / wide},
		{"cost_per_task_increase < 0.1", meanSlope, meanSlope, 1.1 * wide, 1.1 / wide},
		{"user_satisfaction_drop < 0.1", meanSlope, meanSlope, 0.9 / wide, 0.9 * wide},
		{"p95_latency_increase < 0.1", scaleOf, scaleOf, 1.1 * wide, 1.1 / wide},
	} {
		c := checks(t, RoleGuard, EveryStage, tt.check)[0].Check
		m, _ := find(Presets(), c.Metric)
		cfg := Config{CohortSpread: map[string]float64{c.Metric: 0.1}}
		if got := tt.worse(newHypothesis(c, &meter{metric: m}, cfg, worse)); !near(got, tt.wantWorse, 1e-12) {
			t.Errorf("%s: %g against the canary, want %g", tt.check, got, tt.wantWorse)
		}
		if got := tt.within(newHypothesis(c, &meter{metric: m}, cfg, within)); !near(got, tt.wantOther, 1e-12) {
			t.Errorf("%s: %g for the canary, want %g", tt.check, got, tt.wantOther)
		}
	}
}

func slope(h hypothesis) float64     { return h.rate.b }
func level(h hypothesis) float64     { return h.rate.a }
func meanSlope(h hypothesis) float64 { return h.mean.b }
func scaleOf(h hypothesis) float64   { return h.scale }

// While the canary settles nothing is compared, and rules on counted events hold all the same.
func TestSettling(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "safety_violations == 0", "p95_latency_increase < 0.5")...)
	e, r := engine(t, cfg), rand.New(rand.NewPCG(73, 1))
	e.BeginStage(0, 2500)
	if s := e.Settle(); !math.IsNaN(s) {
		t.Errorf("it takes %g s to settle before anything is known", s)
	}
	p := tenPoll(r, 1, 2500)
	p.Settling = true
	p.Samples["error_rate"] = rates(300, 3, 100, 90)
	p.Samples["safety_violations"] = rates(300, 0, 100, 0)
	e.Observe(p)
	report := e.Evaluate(0, 1)
	if report.EValue != 1 || report.Verdict != NoData {
		t.Errorf("E is %g and the verdict %s after a poll that was not to count", report.EValue, report.Verdict)
	}
	if s := e.Settle(); !(s > 0.4 && s < 14) {
		t.Errorf("it takes %g s to settle, want about the 99th percentile of stable's durations", s)
	}
	p.Number++
	p.Samples["safety_violations"] = rates(300, 0, 100, 1)
	e.Observe(p)
	if !e.Evaluate(0, 1).Safety {
		t.Error("a violation while the canary settles is lost")
	}
}
