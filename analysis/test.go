package analysis

import (
	"fmt"
	"math"
	"slices"
)

// test is the sequential test of one null hypothesis: that a metric is within a limit. Checks with the same metric and limit share one.
// It sees the whole rollout, also before the stage that asks for it.
type test struct {
	key   string
	meter *meter
	share float64 // of the evidence that all tests have together, so that alpha is for all of them

	failures bool    // of a ratio: trials without the event are what is bad; of a quantile: observations below the threshold
	scale    float64 // of a quantile relative to stable: the canary's threshold over stable's
	limit    float64 // of a quantile by itself: the threshold

	rate, rateWithin twoRate // of ratios, counts and quantiles
	mean, meanWithin meanTest

	worse  mixture // against the null
	within mixture // against its opposite; without bets where no proof is asked
	proven bool    // within has reached 1/beta
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

// newTest is the test of a check, or nil where a check is none: rules, preconditions and plain values.
func newTest(c Check, mt *meter, cfg Config) *test {
	m := mt.metric
	lowCount := m.Kind == Count && !c.caps(m) // events have no opposite to count
	if m.Kind == Value || m.Name == TotalRequests || c.isRule(m) || lowCount {
		return nil
	}
	t := &test{meter: mt}
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
		t.mean = meanTest{a: a, b: b, sign: sign, bets: meanBets}
		t.meanWithin = meanTest{a: a, b: b, sign: -sign, bets: meanBets}
	case Quantile:
		t.failures, t.scale, t.limit = sign < 0, b, c.Limit
		a, b = 0, 1
		if c.Change == "" {
			a, b = tail(m, t.failures), 0
		}
	default:
		a, b, t.failures = shareNull(c, m, a, b, cfg.Floor)
	}
	if m.Kind != Mean {
		t.rate, t.rateWithin = newTwoRate(a, b, worseBets), newTwoRate(a, b, withinBets)
	}
	t.key = fmt.Sprintf("%s|%g|%g|%g|%t|%g", m.Name, a, b, t.scale, sign < 0, t.limit)
	t.worse = newMixture(t.bets(len(worseBets)))
	if cfg.Advance == AdvanceProof {
		t.within = newMixture(t.bets(len(withinBets)))
	}
	return t
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

func (t *test) bets(rates int) int {
	if t.meter.metric.Kind == Mean {
		return len(meanBets)
	}
	return rates
}

// observe takes one poll's sample. With capped, evidence against the canary is dropped. It comes before the meter adds the sample:
// thresholds and variances are of the polls before.
func (t *test) observe(s Sample, hazard, beta float64, capped bool, scratch []float64) {
	logE := scratch[:len(t.worse.logS)]
	if t.factors(s, false, logE, scratch[len(logE):len(logE)]) {
		t.worse.begin(firstShare, hazard)
		t.worse.multiply(logE, capped)
	}
	if len(t.within.logS) == 0 {
		return
	}
	logE = scratch[:len(t.within.logS)]
	if t.factors(s, true, logE, scratch[len(logE):len(logE)]) {
		t.within.begin(1, 0)
		t.within.multiply(logE, capped)
		t.proven = t.proven || t.within.value() >= 1/beta
	}
}

func (t *test) factors(s Sample, within bool, logE, scratch []float64) bool {
	if t.meter.metric.Kind == Mean {
		test := t.mean
		if within {
			test = t.meanWithin
		}
		return test.factors(t.meter.varStable, t.meter.varCanary, s.Stable, s.Canary, logE)
	}
	nc, xc, ns, xs, ok := t.events(s, within, scratch)
	if !ok {
		return false
	}
	if within {
		return t.rateWithin.factors(nc, xc, ns, xs, logE)
	}
	return t.rate.factors(nc, xc, ns, xs, logE)
}

// events are the trials and the bad events of both versions. Of a quantile they are the observations beyond its threshold. Within the
// bucket that the threshold cuts they are interpolated; but a proof counts that bucket against the canary, whole, and where it is too wide
// to interpolate, evidence counts it for the canary. Either keeps its null.
func (t *test) events(s Sample, within bool, scratch []float64) (nc, xc, ns, xs float64, ok bool) {
	if t.meter.metric.Kind != Quantile {
		return s.Canary.N, t.bad(s.Canary), s.Stable.N, t.bad(s.Stable), true
	}
	canaryAt, stableAt, coarse, ok := t.thresholds(scratch)
	if !ok {
		return 0, 0, 0, 0, false
	}
	ofCanary, ofStable := interpolated, interpolated
	switch {
	case within:
		ofCanary, ofStable = up, down
	case coarse:
		ofCanary, ofStable = down, up
	}
	nc, xc = t.beyond(s.Bounds, s.Canary.Buckets, canaryAt, ofCanary)
	ns, xs = t.beyond(s.Bounds, s.Stable.Buckets, stableAt, ofStable)
	return nc, xc, ns, xs, true
}

// widest is how wide the bucket that a threshold cuts may be to be interpolated, as a share of the change that is allowed.
const widest = 0.4

// coarse reports whether the bucket that holds a threshold is too wide to tell what is allowed from what is not. A limit by itself can be put
// on a bound, so any bucket that it cuts is.
func (t *test) coarse(bounds []float64, at float64) bool {
	low := lowest(bounds)
	for _, high := range bounds {
		if at <= high {
			return at < high && (t.scale == 0 || high-low > widest*math.Abs(t.scale-1)*low)
		}
		low = high
	}
	return false
}

// bad is the number of bad events: a poll's cut may have counted an event before its trial, so failures stay at 0 or more.
func (t *test) bad(c Counts) float64 {
	if t.failures {
		return max(0, c.N-c.X)
	}
	return c.X
}

// beyond is the number of observations, and of those on the bad side of a threshold.
func (t *test) beyond(bounds, buckets []float64, at float64, r rounding) (n, x float64) {
	n = total(buckets)
	if !t.failures {
		return n, above(bounds, buckets, at, r)
	}
	switch r { // what is below counts the other way
	case up:
		r = down
	case down:
		r = up
	}
	return n, n - above(bounds, buckets, at, r)
}

// thresholds are those of a quantile's test, fixed by the polls before. There are none while too little was seen, or where the buckets
// don't reach that far. Where buckets are coarse, stable's threshold moves outwards to the next bound, where its count is exact: that only
// shifts which quantile is compared.
func (t *test) thresholds(scratch []float64) (canary, stable float64, coarse, ok bool) {
	bounds := t.meter.bounds
	if len(bounds) == 0 {
		return 0, 0, false, false
	}
	last := bounds[len(bounds)-1]
	if t.scale == 0 {
		return t.limit, t.limit, t.coarse(bounds, t.limit), t.limit <= last
	}
	stable, ok = t.meter.reference.threshold(bounds, t.meter.metric.Quantile, scratch)
	coarse = t.coarse(bounds, t.scale*stable) || t.coarse(bounds, stable)
	if coarse {
		stable = outwards(bounds, stable, t.failures)
	}
	return t.scale * stable, stable, coarse, ok && t.scale*stable <= last
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

// needed is how many more canary trials it takes, at the rates of a stage, until the evidence decides; NaN if it does not get there.
func (t *test) needed(s Sample, target float64, within bool) float64 {
	kind := t.meter.metric.Kind
	if kind == Mean || kind == Quantile || s.Canary.N <= 0 {
		return math.NaN()
	}
	nc, xc, ns, xs, _ := t.events(s, within, nil)
	rate, wealth := t.rate, t.worse.best()
	if within {
		rate, wealth = t.rateWithin, t.within.best()
	}
	growth := rate.growth(nc, xc, ns, xs)
	if growth <= 0 || math.IsInf(wealth, -1) {
		return math.NaN()
	}
	return max(0, math.Ceil((math.Log(target)-wealth)/growth))
}
