package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
)

// tightening is a rollout whose limits get tighter from stage to stage, with a looser guard beside them, and an absolute limit.
func tightening(t testing.TB) Config {
	cs := checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.50", "task_completion_drop <= 0.05", "error_rate < 0.5")
	for stage, limits := range [][2]string{{"0.10", "0.05"}, {"0.05", "0.03"}, {"0.03", "0.02"}} {
		cs = append(cs, checks(t, RoleStage, stage, "error_rate_increase < "+limits[0], "task_completion_regression < "+limits[1])...)
	}
	cfg := settings(Sequential, cs...)
	cfg.Floor, cfg.PollsPerWindow = 0, 360
	return cfg
}

// Over a whole rollout with weights that rise and limits that tighten, looked at after every poll, a canary that is exactly at the tightest of
// them is rolled back with a chance of at most alpha. More than the bound would be seen with a chance below 1e-4 if that chance were alpha.
func TestFalseRollbacksWhileLimitsTighten(t *testing.T) {
	t.Parallel()
	const rollouts, polls = 300, 120
	cfg := tightening(t)
	cfg.Alpha = 0.05
	rolledBack := 0
	for i := range rollouts {
		w := &world{r: rand.New(rand.NewPCG(61, uint64(i))), perPoll: 1000, stableP: 0.1, canaryP: 0.103, stableD: 0.9, canaryD: 0.98 * 0.9,
			drift: func(n int64) float64 { return 1 + 0.5*math.Sin(float64(n)/40) }}
		if violated, _ := w.run(t, cfg, polls); violated {
			rolledBack++
		}
	}
	if binomialTail(rollouts, rolledBack, cfg.Alpha) < 1e-4 {
		t.Errorf("%d of %d rolled back at the limits, too many at alpha %g", rolledBack, rollouts, cfg.Alpha)
	}
	t.Logf("%d of %d rolled back at the limits, alpha %g", rolledBack, rollouts, cfg.Alpha)
}

// Without the bound by the tightest limit, several limits could each take their whole part of alpha.
func TestTightestLimitBoundsAll(t *testing.T) {
	t.Parallel()
	e := engine(t, tightening(t))
	if len(e.groups) != 3 || len(e.tests) != 8 {
		t.Fatalf("%d groups of %d tests, want 3 of 8", len(e.groups), len(e.tests))
	}
	for _, g := range e.groups {
		tightest := map[string]string{
			"error_rate|true true":            "error_rate|0|1.03|0|false|0",
			"error_rate|true false":           "error_rate|0.5|0|0|false|0",
			"task_completion_rate|false true": "task_completion_rate|0.020000000000000018|0.98|0|true|0",
		}[g.key()+map[bool]string{true: " true", false: " false"}[g.relative]]
		if g.tightest.key != tightest {
			t.Errorf("the tightest of %s is %s, want %s", g.key(), g.tightest.key, tightest)
		}
		for _, test := range g.tests {
			test.value, g.tightest.value = 50, 8
			if got := test.evidence(); got != 8 {
				t.Errorf("%s: the evidence is %g, want at most that of the tightest limit, 8", test.key, got)
			}
		}
	}
}

// Another limit on a metric does not hold up the detection of a regression.
func TestMoreLimitsCostNothing(t *testing.T) {
	t.Parallel()
	requests := map[int]float64{}
	for _, limits := range [][]string{{"error_rate_increase <= 0.1"}, {"error_rate_increase <= 0.1", "error_rate_increase <= 0.3", "error_rate_increase <= 0.5", "error_rate_increase <= 0.05"}} {
		cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, limits...)...)
		for i := range 60 {
			w := &world{r: rand.New(rand.NewPCG(62, uint64(i))), perPoll: 200, stableP: 0.02, canaryP: 0.04}
			violated, n := w.run(t, cfg, 2000)
			if !violated {
				t.Fatal("not rolled back")
			}
			requests[len(limits)] += n
		}
	}
	if requests[4] > 1.02*requests[1] {
		t.Errorf("%.0f canary requests with four limits, %.0f with one", requests[4], requests[1])
	}
}
