package calibration

import (
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// Rollout is what the history is calibrated for.
type Rollout struct {
	Config analysis.Config
	Stages []Stage // in order, at least one
}

// Stage is a stage of the rollout.
type Stage struct {
	Name        string
	Weight      int // in basis points, 1 to 10000
	Duration    time.Duration
	MinRequests int64
}

const full = 10_000 // basis points

// length is how long the rollout takes at least.
func (r Rollout) length() time.Duration {
	var d time.Duration
	for _, s := range r.Stages {
		d += s.Duration
	}
	return d
}

// leastWeight is the smallest share of traffic that a canary gets, in (0,1].
func (r Rollout) leastWeight() float64 {
	least := full
	for _, s := range r.Stages {
		least = min(least, s.Weight)
	}
	return float64(least) / full
}

// validate wants stages that can be replayed.
func (r Rollout) validate() error {
	if len(r.Stages) == 0 {
		return fmt.Errorf("a rollout without stages can't be calibrated for, want at least one")
	}
	if !slices.ContainsFunc(r.Config.Metrics, r.tests) {
		return fmt.Errorf("the rollout tests nothing that chance may change, want a check such as error_rate_increase < 0.10")
	}
	for _, s := range r.Stages {
		if s.Weight < 1 || s.Weight > full || s.Duration < 0 {
			return fmt.Errorf("stage %s: weight %d basis points for %s: want 1 to %d, and no negative duration", s.Name, s.Weight, s.Duration, full)
		}
	}
	if r.length() <= 0 {
		return fmt.Errorf("the stages have no duration, want at least one that has: a rollout of no length can't be replayed")
	}
	return nil
}

// tested reports whether evidence is gathered for a check: not for rules on counted events and least numbers of requests, which are no
// question of chance between two versions, nor for plain values, which have no history.
func tested(c analysis.Check, m analysis.Metric) bool {
	return m.Kind != analysis.Value && (m.Kind != analysis.Count || c.Change != "")
}

// tests reports whether evidence is gathered on a metric.
func (r Rollout) tests(m analysis.Metric) bool {
	return slices.ContainsFunc(r.Config.Checks, func(rc analysis.RoleCheck) bool { return rc.Check.Metric == m.Name && tested(rc.Check, m) })
}

// replayed is the configuration of the pseudo-rollouts: the rollout's own, with the checks that a history can speak of. It is
// not frozen: the polls that would have been are left out.
func (r Rollout) replayed(h *History, polls int) analysis.Config {
	cfg := r.Config
	cfg.Metrics, cfg.Checks, cfg.FreezeWhen = nil, nil, nil
	for _, m := range r.Config.Metrics {
		if i := h.index(m.Name); i >= 0 && h.total(i).N > 0 {
			cfg.Metrics = append(cfg.Metrics, m)
		}
	}
	metric := func(name string) (analysis.Metric, bool) {
		for _, m := range cfg.Metrics {
			if m.Name == name {
				return m, true
			}
		}
		return analysis.Metric{}, false
	}
	for _, rc := range r.Config.Checks {
		if m, ok := metric(rc.Check.Metric); ok && tested(rc.Check, m) {
			cfg.Checks = append(cfg.Checks, rc)
		}
	}
	cfg.PollsPerWindow = polls
	return cfg
}

// tightest is the smallest change for the worse that some check of a metric does not allow, as a factor of the base: of the events, the
// failures, the mean or the quantile. +Inf where nothing bounds it.
func (r Rollout) tightest(m analysis.Metric, base float64) float64 {
	least := inf
	for _, rc := range r.Config.Checks {
		if c := rc.Check; c.Metric == m.Name && tested(c, m) {
			least = min(least, allowed(c, m, base))
		}
	}
	return least
}

// allowed is the largest factor for the worse that a check allows at a base value; +Inf where it does not bound the bad side.
func allowed(c analysis.Check, m analysis.Metric, base float64) float64 {
	upper := c.Op == analysis.Below || c.Op == analysis.AtMost || c.Op == analysis.Equal
	rises := c.Change == analysis.Increase || (c.Change == analysis.Regression && m.Better == analysis.Lower)
	limit := c.Limit // on the canary's own value
	if c.Change != "" {
		limit = base * (1 - c.Limit)
		if rises {
			limit = base * (1 + c.Limit)
		}
		upper = rises == upper
	}
	switch {
	case base <= 0 || math.IsNaN(base):
		return inf
	case m.Better == analysis.Higher && upper, m.Better != analysis.Higher && !upper:
		return inf
	case m.Better == analysis.Higher && m.Kind == analysis.Ratio:
		return ratio(1-limit, 1-base) // of the failures; NaN without any
	case m.Better == analysis.Higher:
		return ratio(base, limit)
	}
	return limit / base
}
