package analysis

import (
	"fmt"
	"math"
	"slices"
)

// side says what a hypothesis is tested for.
type side int

const (
	worse  side = iota // evidence that the canary is beyond it
	within             // evidence that it is not
)

// hypothesis is the null that a check stands for: p_c ≤ a + b·p_s of rates, the same of means, or that the canary's quantile is at most
// scale times stable's. Tested for within, it is the opposite null.
type hypothesis struct {
	meter *meter
	side  side
	phi   float64 // overdispersion, at least 1

	rate     twoRate  // of ratios, counts and quantiles
	mean     meanTest // of means
	failures bool     // of a ratio: trials without the event are what is bad; of a quantile: observations below the threshold
	scale    float64  // of a quantile relative to stable: the canary's threshold over stable's
	limit    float64  // of a quantile by itself: the threshold
}

// caps reports whether the check bounds the canary from above.
func (c Check) caps(m Metric) bool {
	upper := c.Op.isUpper() || c.Op == Equal
	if c.Change == "" {
		return upper
	}
	return c.rises(m) == upper
}

// factor is what stable's value is multiplied by to be the limit on the canary's.
func (c Check) factor(m Metric) float64 {
	if c.rises(m) {
		return 1 + c.Limit
	}
	return 1 - c.Limit
}

// isTested reports whether there is a sequential test of the check: not of rules, preconditions and plain values.
func (c Check) isTested(m Metric) bool {
	lowCount := m.Kind == Count && !c.caps(m) // events have no opposite to count
	return m.Kind != Value && m.Name != TotalRequests && !c.isRule(m) && !lowCount
}

// cohortQuantile of a normal distribution: a cohort of users is further off with a chance of 0.5 %.
const cohortQuantile = 2.58

// newHypothesis is the null of a check that isTested. A cohort's permanent offset is allowed for on either side: no amount of traffic tells it
// from a change.
func newHypothesis(c Check, mt *meter, cfg Config, on side) hypothesis {
	m := mt.metric
	h := hypothesis{meter: mt, side: on, phi: max(1, cfg.Overdispersion[m.Name])}
	offset := math.Exp(cohortQuantile * cfg.CohortSpread[m.Name])
	if c.caps(m) != (on == worse) {
		offset = 1 / offset
	}
	a, b := c.Limit, 0.0
	if c.Change != "" {
		a, b = 0, c.factor(m)
	}
	sign := 1.0
	if !c.caps(m) {
		sign = -1
	}
	switch m.Kind {
	case Mean:
		h.mean = meanTest{a: a * offset, b: b * offset, sign: sign}
	case Quantile:
		h.failures, h.scale, h.limit = sign < 0, b*offset, c.Limit*offset
		h.rate = twoRate{b: 1}
		if c.Change == "" {
			h.rate = twoRate{a: tail(m, h.failures)}
		}
	default:
		a, b, h.failures = shareNull(c, m, a, b, cfg.Floor)
		if h.failures { // the offset is on the failures
			offset = 1 / offset
		}
		h.rate = twoRate{a: a, b: b * offset, counted: m.Kind == Count}
		if c.Change == "" {
			h.rate.a *= offset
		}
	}
	return h
}

// shareNull is the null p_c ≤ a + b·p_s of a share, or of the failures where the check bounds it from below:
// p_c ≥ b·p_s is 1−p_c ≤ (1−b) + b·(1−p_s), so a fall by d has a=d and b=1−d.
func shareNull(c Check, m Metric, a, b, floor float64) (float64, float64, bool) {
	switch {
	case c.caps(m) && c.Change != "":
		return floor, b, false
	case c.caps(m):
		return a, 0, false
	case c.Change != "":
		return 1 - b, b, true
	}
	return 1 - a, 0, true
}

// tail is the share of observations beyond the quantile, on the bad side.
func tail(m Metric, low bool) float64 {
	if low {
		return m.Quantile
	}
	return 1 - m.Quantile
}

// key tells hypotheses apart.
func (h *hypothesis) key() string {
	sign := h.failures
	a, b := h.rate.a, h.rate.b
	if h.meter.metric.Kind == Mean {
		a, b, sign = h.mean.a, h.mean.b, h.mean.sign < 0
	}
	return fmt.Sprintf("%s|%g|%g|%g|%t|%g", h.meter.metric.Name, a, b, h.scale, sign, h.limit)
}

// round is one poll as a hypothesis sees it: what its bets win or lose.
type round struct {
	isMean bool
	gap    gap
	rate   twoRate
	draw   draw
	phi    float64
	alike  float64 // the optimal bet for a canary that equals stable; of side within only
}

// factor is the log of a bet's factor: on a difference for means, else on ρ−1. With φ it is tempered: clumped requests say φ times less than
// independent ones.
func (r *round) factor(bet float64) float64 {
	if r.isMean {
		return r.gap.factor(bet) / r.phi
	}
	return r.rate.factor(&r.draw, bet) / r.phi
}

// fraction is the log of the factor of a multiple of the bet that is optimal for a canary that equals stable.
func (r *round) fraction(multiple float64) float64 {
	if r.isMean {
		return r.factor(multiple * r.alike)
	}
	return r.factor(math.Expm1(multiple * r.alike))
}

// view is what both versions did, ready to be looked at by many hypotheses.
type view struct {
	stable, canary           Counts
	stableTails, canaryTails tails // of kind quantile
}

// of takes in a sample.
func (v *view) of(s Sample) {
	v.stable, v.canary = s.Stable, s.Canary
	v.stableTails = tailsOf(s.Stable.Buckets, v.stableTails)
	v.canaryTails = tailsOf(s.Canary.Buckets, v.canaryTails)
}

// round is what a view says, by what the meter knew before it. It reports false where that is nothing.
func (h *hypothesis) round(v *view) (round, bool) {
	mt := h.meter
	if mt.metric.Kind == Mean {
		g, ok := h.mean.gap(mt.varStable, mt.varCanary, v.stable, v.canary)
		r := round{isMean: true, gap: g, phi: h.phi}
		if h.side == within {
			r.alike = min(-minMeanBet, max(-maxMeanBet, h.mean.alike(g, mt.past.mean())))
		}
		return r, ok
	}
	e, ok := h.events(v)
	if !ok {
		return round{}, false
	}
	r := round{rate: h.rate, phi: h.phi}
	r.draw, ok = h.rate.draw(e.nc, e.xc, e.ns, e.xs, e.thetaS)
	if h.side == within {
		r.alike = h.rate.alike(e.target, e.thetaS)
	}
	return r, ok
}

// The boldest and the most timid bet for a canary that equals stable, in standard deviations of an observation.
const (
	maxMeanBet = 2
	minMeanBet = 0.005
)

// events are the trials and the bad events of both versions in a poll, and what was known of stable's before.
type events struct {
	nc, xc, ns, xs float64
	thetaS         float64 // stable's rate; 0 if nothing was
	target         float64 // the canary's rate if it equals stable
}

// events counts a view's. Of a quantile they are the observations beyond its threshold. Within the bucket that the threshold cuts they are
// interpolated; but a proof counts that bucket against the canary, whole, and where it is too wide to interpolate, evidence counts it for the
// canary. Either keeps its null.
func (h *hypothesis) events(v *view) (events, bool) {
	mt := h.meter
	if mt.metric.Kind != Quantile {
		e := events{nc: v.canary.N, xc: h.bad(v.canary.N, v.canary.X), ns: v.stable.N, xs: h.bad(v.stable.N, v.stable.X)}
		if mt.past.n > 0 {
			e.thetaS = (h.bad(mt.past.n, mt.past.x) + 1) / (mt.past.n + 2) // Laplace's rule of succession
			e.target = e.thetaS
		}
		return e, true
	}
	canaryAt, stableAt, coarse, ok := h.thresholds()
	if !ok {
		return events{}, false
	}
	ofCanary, ofStable := interpolated, interpolated
	switch {
	case h.side == within:
		ofCanary, ofStable = up, down
	case coarse:
		ofCanary, ofStable = down, up
	}
	e := events{nc: v.canaryTails.total(), ns: v.stableTails.total()}
	e.xc = h.beyond(v.canaryTails, canaryAt, ofCanary)
	e.xs = h.beyond(v.stableTails, stableAt, ofStable)
	if n := mt.seenTails.total(); n > 0 {
		e.thetaS = (h.beyond(mt.seenTails, stableAt, ofStable) + 1) / (n + 2)
		e.target = (h.beyond(mt.seenTails, canaryAt, ofCanary) + 1) / (n + 2)
	}
	return e, true
}

// bad is the number of bad events: a poll's cut may have counted an event before its trial, so failures stay at 0 or more.
func (h *hypothesis) bad(n, x float64) float64 {
	if h.failures {
		return max(0, n-x)
	}
	return x
}

// beyond is the number of observations on the bad side of a threshold.
func (h *hypothesis) beyond(ts tails, at float64, r rounding) float64 {
	bounds := h.meter.bounds
	if !h.failures {
		return ts.above(bounds, at, r)
	}
	switch r { // what is below counts the other way
	case up:
		r = down
	case down:
		r = up
	}
	return ts.total() - ts.above(bounds, at, r)
}

// widest is how wide the bucket that a threshold cuts may be to be interpolated, as a share of the change that is allowed.
const widest = 0.4

// coarse reports whether the bucket that holds a threshold is too wide to tell what is allowed from what is not. A limit by itself can be put
// on a bound, so any bucket that it cuts is.
func (h *hypothesis) coarse(bounds []float64, at float64) bool {
	i, exact := slices.BinarySearch(bounds, at)
	if exact || i == len(bounds) {
		return false
	}
	low := lowest(bounds)
	if i > 0 {
		low = bounds[i-1]
	}
	return h.scale == 0 || bounds[i]-low > widest*math.Abs(h.scale-1)*low
}

// thresholds are those of a quantile's test, fixed by the polls before. There are none while too little was seen, or where the buckets
// don't reach that far. Where buckets are coarse, stable's threshold moves outwards to the next bound, where its count is exact: that only
// shifts which quantile is compared.
func (h *hypothesis) thresholds() (canary, stable float64, coarse, ok bool) {
	bounds := h.meter.bounds
	if len(bounds) == 0 {
		return 0, 0, false, false
	}
	last := bounds[len(bounds)-1]
	if h.scale == 0 {
		return h.limit, h.limit, h.coarse(bounds, h.limit), h.limit <= last
	}
	stable, ok = h.meter.cut, h.meter.cutKnown
	coarse = h.coarse(bounds, h.scale*stable) || h.coarse(bounds, stable)
	if coarse {
		if moved := outwards(bounds, stable, h.failures); h.scale*moved <= last { // else the bucket counts for stable, whole
			stable = moved
		}
	}
	return h.scale * stable, stable, coarse, ok && h.scale*stable <= last
}

// unobservable reports whether a quantile's limit lies above the last bound, and where both are.
func (h *hypothesis) unobservable() (at, last float64, is bool) {
	mt := h.meter
	if mt.metric.Kind != Quantile || len(mt.bounds) == 0 {
		return 0, 0, false
	}
	last = mt.bounds[len(mt.bounds)-1]
	if h.scale == 0 {
		return h.limit, last, h.limit > last
	}
	at, _, _, ok := h.thresholds()
	return at, last, mt.cutKnown && !ok
}

// outwards is the next bound at or above a threshold, or at or below it where low values are bad.
func outwards(bounds []float64, at float64, low bool) float64 {
	i, exact := slices.BinarySearch(bounds, at)
	switch {
	case exact:
		return at
	case low && i == 0:
		return lowest(bounds)
	case low:
		return bounds[i-1]
	}
	return bounds[min(i, len(bounds)-1)]
}
