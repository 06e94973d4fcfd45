package trials

import (
	"fmt"
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/plan"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// A limit is by how much the canary may be worse than stable, as a share of stable's value.
type limit struct {
	metric string
	check  string  // the change that a check names
	worse  float64 // of completion, of the rate itself: failures may rise from f to worse + (1−worse)·f
}

// limits are those of the published tables: errors +10 %, failures from 10 to 12 %, p95 +30 %, cost +10 %, satisfaction −5 %.
func limits() []limit { return limitsOf(1) }

// limitsOf are the limits times a share.
func limitsOf(share float64) []limit {
	return []limit{
		{"error_rate", "increase", 0.10 * share},
		{"task_completion_rate", "regression", 0.0223 * share},
		{"p95_latency", "increase", 0.30 * share},
		{"cost_per_task", "increase", 0.10 * share},
		{"user_satisfaction", "regression", 0.05 * share},
	}
}

func (l limit) text() string { return fmt.Sprintf("%s_%s < %g", l.metric, l.check, l.worse) }

// parsed is the limit as a check.
func (l limit) parsed(role analysis.Role, stage int) analysis.RoleCheck {
	return analysis.RoleCheck{Check: must(analysis.ParseCheck(l.text())), Role: role, Stage: stage}
}

// factor is what the canary's base is multiplied by to be exactly at the limit, in the terms of [world.Regression].
func (l limit) factor(m *world.Metric) float64 {
	switch {
	case m.Kind == analysis.Ratio && m.Better == analysis.Higher:
		failures := 1 - m.Base
		return (l.worse + (1-l.worse)*failures) / failures
	case m.Better == analysis.Higher:
		return 1 - l.worse
	}
	return 1 + l.worse
}

// atLimits makes the canary exactly as bad as the limits allow. Traffic is level: a limit on failures is another factor at each time of day.
func atLimits(w world.World, limits []limit) world.World {
	w.Diurnal = 0
	for _, l := range limits {
		if m := w.Metric(l.metric); m != nil {
			w.Regressions = append(w.Regressions, world.Regression{Metric: l.metric, Factor: l.factor(m)})
		}
	}
	return w
}

// config asks for limits of all stages, by the sequential method, as a rollout file would over a number of polls. The slack near zero is none,
// so that the limits are what they say.
func config(limits []limit, advance string, polls int) analysis.Config {
	cfg := analysis.Config{
		Method: analysis.Sequential, Alpha: alpha, Beta: beta, Advance: advance, PollsPerWindow: polls, Stages: 1,
	}
	for _, l := range limits {
		m, _ := analysis.Preset(l.metric)
		cfg.Metrics = append(cfg.Metrics, m)
		cfg.Checks = append(cfg.Checks, l.parsed(analysis.RoleStage, analysis.EveryStage))
	}
	return cfg
}

// The risks that are taken: a false rollback in a hundred rollouts, a false proof in twenty.
const (
	alpha = 0.01
	beta  = 0.05
)

// weekPolls is how many polls a week has.
const weekPolls = int(week / step)

// only keeps the named metrics of a world. The others are as if they never reported.
func only(w world.World, names ...string) world.World {
	var kept []world.Metric
	for _, name := range names {
		kept = append(kept, *w.Metric(name))
	}
	w.Metrics = kept
	return w
}

// at is the default world at a rate, with a histogram as fine as those of Aviary's own gateway.
func at(rps float64) world.World {
	w := world.Default()
	w.RPS = rps
	w.Metric("p95_latency").Bounds = world.FineBounds()
	return w
}

// bound is the number of canary requests that any rule needs on average which detects a regression for sure and rolls back falsely with a
// chance of at most level: ln(1/level)/I, after Wald, "Sequential Tests of Statistical Hypotheses" (1945), with I the information of one canary
// request against the nearest truth within the limit. It is +Inf within the limit. For means, I is that of normal observations.
func bound(w world.World, l limit, factor, level float64) float64 {
	m := w.Metric(l.metric)
	if !l.isBeyond(m, factor) {
		return math.Inf(1)
	}
	const stablePerCanary = (10_000.0 - small) / small
	var info float64
	switch {
	case m.Kind == analysis.Mean:
		info = meanInformation(m, l, factor, stablePerCanary)
	case m.Kind == analysis.Quantile:
		z := distuv.UnitNormal.Quantile(m.Quantile)
		beyond := distuv.UnitNormal.Survival((math.Log((1+l.worse)/factor) + z*m.Spread) / m.Spread)
		info = plan.Information(beyond, 1-m.Quantile, 0, 1, stablePerCanary)
	case m.Better == analysis.Higher:
		failures := 1 - m.Base
		info = plan.Information(min(1, failures*factor), failures, l.worse, 1-l.worse, stablePerCanary)
	default:
		info = plan.Information(min(1, m.Base*factor), m.Base, 0, 1+l.worse, stablePerCanary)
	}
	if m.Share > 0 {
		info *= m.Share
	}
	return math.Log(1/level) / info
}

// isBeyond reports whether a factor is more than the limit allows.
func (l limit) isBeyond(m *world.Metric, factor float64) bool {
	const rounding = 1e-9
	if m.Kind == analysis.Mean && m.Better == analysis.Higher {
		return factor < l.factor(m)-rounding
	}
	return factor > l.factor(m)+rounding
}

// meanInformation is that of one canary observation on a mean.
func meanInformation(m *world.Metric, l limit, factor, stablePerCanary float64) float64 {
	stable := m.Spread * m.Base
	canary := stable * factor
	if len(m.Ratings) > 0 {
		stable, canary = ratingDeviations(m, factor)
	}
	return plan.MeanInformation(m.Base*factor, m.Base, canary, stable, 0, l.factor(m), stablePerCanary)
}

// ratingDeviations are the standard deviations of one rating: of stable, and of a canary some of whose ratings are replaced by the worst.
func ratingDeviations(m *world.Metric, factor float64) (stable, canary float64) {
	square := 0.0
	for i, share := range m.Ratings {
		square += share * float64((i+1)*(i+1))
	}
	replaced := m.Base * (1 - factor) / (m.Base - 1)
	mean := m.Base * factor
	return math.Sqrt(square - m.Base*m.Base), math.Sqrt(square*(1-replaced) + replaced - mean*mean)
}
