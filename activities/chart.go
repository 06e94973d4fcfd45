package activities

import (
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// maxPoints is how many points of the series a slice has.
const maxPoints = 30

// chart gathers points: each holds the estimates over the polls since the one before.
type chart struct {
	every time.Duration
	sums  map[string][2]analysis.Counts // stable, canary
	kinds map[string]analysis.Kind
}

// take adds a poll's counts to the point to come.
func (c *chart) take(metrics []analysis.Metric, samples map[string]analysis.Sample) {
	if c.sums == nil {
		c.sums, c.kinds = map[string][2]analysis.Counts{}, map[string]analysis.Kind{}
	}
	for _, m := range metrics {
		s, ok := samples[m.Name]
		if !ok {
			continue
		}
		sums := c.sums[m.Name]
		for i, counts := range [2]analysis.Counts{s.Stable, s.Canary} {
			sums[i].N += counts.N
			sums[i].X += counts.X
			if counts.HasValue {
				sums[i].Value, sums[i].HasValue = counts.Value, true
			}
		}
		c.sums[m.Name], c.kinds[m.Name] = sums, m.Kind
	}
}

// add puts a point into the series if one is due.
func (c *chart) add(series *[]rollout.Point, now time.Time, weight rollout.Weight, report analysis.Report) {
	if n := len(*series); n >= maxPoints || n > 0 && now.Sub((*series)[n-1].At) < c.every {
		return
	}
	p := rollout.Point{At: now.UTC(), Weight: weight, EValue: charted(report.EValue), Values: map[string][2]float64{}}
	for name, sums := range c.sums {
		stable, okStable := value(c.kinds[name], sums[0])
		canary, okCanary := value(c.kinds[name], sums[1])
		if okStable && okCanary {
			p.Values[name] = [2]float64{stable, canary}
		}
	}
	for _, f := range report.Findings { // quantiles have no sums of their own
		_, has := p.Values[f.Metric]
		stable, canary := number(f.StableEstimate), number(f.CanaryEstimate)
		if c.kinds[f.Metric] == analysis.Quantile && !has && stable != nil && canary != nil {
			p.Values[f.Metric] = [2]float64{*stable, *canary}
		}
	}
	*series = append(*series, p)
	c.sums, c.kinds = nil, nil
}

// value is a metric's estimate over some polls. It is false without data.
func value(kind analysis.Kind, c analysis.Counts) (float64, bool) {
	v := c.Value
	switch {
	case kind == analysis.Value && c.HasValue:
	case kind == analysis.Count && c.N > 0:
		v = c.X
	case (kind == analysis.Ratio || kind == analysis.Mean) && c.N > 0:
		v = c.X / c.N
	default:
		return 0, false
	}
	return v, number(v) != nil
}
