package world

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"github.com/aviary-rollouts/aviary/analysis"
)

// Bounds on what can be made up in a reasonable time.
const (
	mostRPS    = 100_000
	mostFactor = 1e6
)

// Validate says everything that is wrong with a World, and what is allowed, as joined errors.
func (w *World) Validate() error {
	var p problems
	if !within(w.RPS, 0, mostRPS) || w.RPS == 0 {
		p.add("rps %g: want a number above 0 and at most %d", w.RPS, mostRPS)
	}
	if !within(w.Diurnal, 0, 1) {
		p.add("diurnal %g: want a share from 0 to 1", w.Diurnal)
	}
	if len(w.Metrics) == 0 {
		p.add("no metrics: want at least one")
	}
	names := map[string]*Metric{}
	for i := range w.Metrics {
		m := &w.Metrics[i]
		if names[m.Name] != nil {
			p.add("metric %q is there twice", m.Name)
		}
		names[m.Name] = m
		m.validate(&p)
	}
	for _, r := range w.Regressions {
		what := fmt.Sprintf("regression of %q", r.Metric)
		p.factor(what, names, r.Metric, r.Factor)
		if r.From < 0 {
			p.add("%s: from %s: want 0 or later", what, r.From)
		}
	}
	for _, i := range w.Incidents {
		what := fmt.Sprintf("incident of %q", i.Metric)
		p.factor(what, names, i.Metric, i.Factor)
		if i.Arm != Canary && i.Arm != Stable && i.Arm != Both {
			p.add("%s: arm %q: want %s, %s or %s", what, i.Arm, Canary, Stable, Both)
		}
		if i.From < 0 || i.To <= i.From {
			p.add("%s: from %s to %s: want 0 or later, and an end after the start", what, i.From, i.To)
		}
	}
	return errors.Join(p...)
}

type problems []error

func (p *problems) add(format string, args ...any) { *p = append(*p, fmt.Errorf(format, args...)) }

// factor wants a known metric that can be made so much of.
func (p *problems) factor(what string, names map[string]*Metric, metric string, factor float64) {
	if !within(factor, 0, mostFactor) {
		p.add("%s: factor %g: want a number from 0 to %g", what, factor, float64(mostFactor))
	}
	m := names[metric]
	if m == nil {
		p.add("%s: it is not a metric of this world, want one of %s", what, strings.Join(slices.Sorted(maps.Keys(names)), ", "))
		return
	}
	if m.Kind == analysis.Quantile && factor == 0 {
		p.add("%s: factor 0: want a duration above 0", what)
	}
	most := float64(len(m.Ratings))
	if most > 0 && !within(m.Base*factor, 1, most) {
		p.add("%s: factor %g makes a rating of %g: want one from 1 to %g", what, factor, m.Base*factor, most)
	}
}

func (m *Metric) validate(p *problems) {
	switch {
	case m.Name == "":
		p.add("a metric has no name")
	case m.Name == analysis.TotalRequests:
		p.add("metric %q is the traffic itself, which follows from rps: leave it out", m.Name)
	}
	bad := func(field string, value float64, want string) {
		p.add("metric %q: %s %g: want %s", m.Name, field, value, want)
	}
	if !within(m.Spread, 0, 100) {
		bad("spread", m.Spread, "a number from 0 to 100")
	}
	if !within(m.Share, 0, 1) {
		bad("share", m.Share, "a share from 0 to 1, 0 for all requests")
	}
	switch m.Kind {
	case analysis.Ratio, analysis.Count:
		if !within(m.Base, 0, 1) {
			bad("base", m.Base, "a rate per trial from 0 to 1")
		}
	case analysis.Mean:
		m.validateMean(p, bad)
	case analysis.Quantile:
		m.validateQuantile(p, bad)
	case analysis.Value:
		if !finite(m.Base) {
			bad("base", m.Base, "a finite number")
		}
	default:
		p.add("metric %q: kind %q: want ratio, count, mean, quantile or value", m.Name, m.Kind)
	}
	m.validateBurst(p, bad)
}

func (m *Metric) validateBurst(p *problems, bad func(string, float64, string)) {
	if m.Burst != 0 && !within(m.Burst, 1, 1000) {
		bad("burst", m.Burst, "a mean size from 1 to 1000, 0 for none")
	}
	if m.Burst <= 1 {
		return
	}
	if m.Kind != analysis.Ratio && m.Kind != analysis.Count {
		p.add("metric %q: only the events of a ratio or a count come in bursts", m.Name)
	}
	if m.Share > 0 && m.Share < 1 {
		bad("share", m.Share, "0 where events come in bursts, whose retries all report the metric")
	}
}

func (m *Metric) validateMean(p *problems, bad func(string, float64, string)) {
	if !(m.Base > 0) || !finite(m.Base) {
		bad("base", m.Base, "a mean above 0")
	}
	if m.Shape != "" && m.Shape != Gamma && m.Shape != Lognormal {
		p.add("metric %q: shape %q: want %s or %s", m.Name, m.Shape, Gamma, Lognormal)
	}
	if len(m.Ratings) == 0 {
		return
	}
	sum, mean := 0.0, 0.0
	for i, share := range m.Ratings {
		if !within(share, 0, 1) {
			bad(fmt.Sprintf("share of rating %d", i+1), share, "a share from 0 to 1")
		}
		sum += share
		mean += share * float64(i+1)
	}
	if !(math.Abs(sum-1) < 1e-9) || len(m.Ratings) < 2 {
		bad("sum of the shares of ratings", sum, "1, of two ratings or more")
	}
	if !(math.Abs(mean-m.Base) < 1e-9) || mean <= 1 || mean >= float64(len(m.Ratings)) {
		bad("base", m.Base, fmt.Sprintf("the ratings' mean, which is %g, between the worst and the best", mean))
	}
}

func (m *Metric) validateQuantile(p *problems, bad func(string, float64, string)) {
	if !(m.Base > 0) || !finite(m.Base) {
		bad("base", m.Base, "a median in seconds above 0")
	}
	if !(m.Spread > 0) {
		bad("spread", m.Spread, "the sigma of a lognormal, above 0")
	}
	for i, b := range m.Bounds {
		if !finite(b) || b <= 0 || (i > 0 && b <= m.Bounds[i-1]) {
			p.add("metric %q: bound %g: want bounds above 0 that rise", m.Name, b)
		}
	}
}

// within is false for NaN.
func within(x, low, high float64) bool { return x >= low && x <= high }

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
