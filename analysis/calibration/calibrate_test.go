package calibration

import (
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// check is a check of a role in every stage.
func check(t testing.TB, text string, role analysis.Role) analysis.RoleCheck {
	t.Helper()
	c, err := analysis.ParseCheck(text)
	if err != nil {
		t.Fatal(err)
	}
	return analysis.RoleCheck{Check: c, Role: role, Stage: analysis.EveryStage}
}

// day is a rollout of a day over four stages.
func day(t testing.TB, metrics []analysis.Metric, checks ...string) Rollout {
	t.Helper()
	r := Rollout{Config: analysis.Config{
		Method: analysis.Sequential, Alpha: 0.01, Beta: 0.05, Floor: 0.001, Advance: analysis.AdvanceEstimate, Metrics: metrics,
	}}
	for _, text := range checks {
		r.Config.Checks = append(r.Config.Checks, check(t, text, analysis.RoleGuard))
	}
	for _, s := range []struct {
		name   string
		weight int
		length time.Duration
	}{{"initial", 500, 6 * time.Hour}, {"quarter", 2500, 6 * time.Hour}, {"half", 5000, 6 * time.Hour}, {"most", 7500, 6 * time.Hour}} {
		r.Stages = append(r.Stages, Stage{Name: s.name, Weight: s.weight, Duration: s.length, MinRequests: 50})
	}
	return r
}

func TestCalibrateIndependent(t *testing.T) {
	t.Parallel()
	h := synth{seed: 5, days: 7, step: 15 * time.Second, rps: 10, diurnal: 0.3, errors: 0.01}.history()
	got, err := Calibrate(h, day(t, h.Metrics, "error_rate_increase < 0.10"), Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%+v", got.Replays)
	for _, p := range got.Promises {
		t.Logf("%+v %v %v", p, deref(p.Median), deref(p.P90))
	}
	for _, w := range got.Warnings {
		t.Log(w)
	}
	t.Log(got.Overdispersion)
}

func deref(p *float64) any {
	if p == nil {
		return nil
	}
	return *p
}
