package analysis

import (
	"fmt"
	"math"
)

// comparison is what a check compares.
type comparison struct {
	stable, canary estimate
	change         float64 // NaN for a check on the canary's own value
	value          float64 // what the limit is on
	holds          bool
	allowed        float64 // the canary's value that the floor still allows, where the change is beyond the limit; 0: it is not
	ok             bool    // there was something to compare
	unclear        bool    // there was, and the numbers don't tell
	why            string  // there was not
}

// stableOf is what the canary is compared with: the stage's own, or what was kept for a bake.
func (e *Engine) stableOf(mt *meter) *tally {
	if e.weight >= bake && mt.baseline.observations(mt.metric.Kind) > 0 {
		return &mt.baseline
	}
	return &mt.stable
}

// compare puts a check's numbers side by side.
func (e *Engine) compare(a *asked) comparison {
	m, mt := a.meter.metric, a.meter
	if m.Kind == Count && a.Check.Change == "" {
		return e.compareCounted(a)
	}
	return e.compareTallies(a, e.stableOf(mt), &mt.canary)
}

// compareLately is compare for the polls since the evidence began to rise. There is none for quantiles.
func (e *Engine) compareLately(a *asked) comparison {
	r := a.test.rise
	stable, canary := tally{n: r.stable.n, x: r.stable.x}, tally{n: r.canary.n, x: r.canary.x}
	return e.compareTallies(a, &stable, &canary)
}

func (e *Engine) compareTallies(a *asked, stable, canary *tally) comparison {
	m, mt := a.meter.metric, a.meter
	c := comparison{change: math.NaN()}
	c.stable, c.canary = stable.estimate(m, mt.bounds), canary.estimate(m, mt.bounds)
	switch {
	case !c.canary.ok:
		c.why = "the canary has reported none in this stage"
		return c
	case a.Check.Change == "":
		c.value = snap(c.canary.value, a.Check.Limit)
		c.holds = a.Check.Op.holds(c.value, a.Check.Limit)
	case !c.stable.ok:
		c.why = "there are none of stable to compare with"
		return c
	case c.stable.least:
		c.why = "stable's is above all buckets of the histogram"
		return c
	default:
		c.change = snap(relative(c.stable.value, c.canary.value, a.Check.rises(m)), a.Check.Limit)
		c.value = c.change
		c.holds, c.allowed = e.within(a, c)
	}
	if a.test != nil && c.holds && !c.canary.least {
		if at, last, unobservable := a.test.limit.unobservable(); unobservable {
			c.why = fmt.Sprintf("it can't be observed, the limit is at %s and the last bucket of the histogram ends at %s", number(at), number(last))
			return c
		}
	}
	// What is only known to be at least so much decides where it is too much, or enough, already.
	if c.canary.least && c.holds == a.Check.caps(m) {
		c.why, c.unclear = "the canary's is above all buckets of the histogram", true
		return c
	}
	c.ok = true
	return c
}

// within reports whether a change is within the limit. From nothing, and for the sequential method from next to nothing, the floor is
// allowed in absolute terms: then it tells up to which value of the canary's.
func (e *Engine) within(a *asked, c comparison) (holds bool, allowed float64) {
	m := a.meter.metric
	if a.Check.Op.holds(c.change, a.Check.Limit) {
		return true, 0
	}
	share := m.Kind == Ratio || m.Kind == Count
	switch {
	case !a.Check.caps(m):
		return false, 0
	case c.stable.value == 0:
		allowed = e.cfg.Floor
	case a.test != nil && share:
		allowed = e.cfg.Floor + a.Check.factor(m)*c.stable.value
	default:
		return false, 0
	}
	if c.canary.value <= allowed {
		return true, allowed
	}
	return false, 0
}

// compareCounted is compare for a number of events: of requests and what should be many in the stage, of what should be few in the whole
// rollout.
func (e *Engine) compareCounted(a *asked) comparison {
	m, mt := a.meter.metric, a.meter
	c := comparison{change: math.NaN()}
	stable := e.stableOf(mt)
	c.stable = estimate{value: stable.x, ok: stable.n > 0}
	seen := mt.canary.n > 0
	switch {
	case m.Name == TotalRequests:
		c.stable = estimate{value: e.requests.Stable, ok: true}
		c.value, seen = e.requests.Canary, true
	case a.Check.isRule(m):
		c.value = mt.events
		seen = seen || mt.events > 0
	default:
		c.value = mt.canary.x
	}
	c.canary = estimate{value: c.value, ok: seen}
	c.holds, c.ok = a.Check.Op.holds(c.value, a.Check.Limit), seen
	if !seen {
		c.why = "the canary has reported none in this stage"
	}
	return c
}

// relative is (canary−stable)/|stable|, or its negative where the named change is a fall. From 0 it is 0 or infinite.
func relative(stable, canary float64, rises bool) float64 {
	d := canary - stable
	if !rises {
		d = -d
	}
	if d == 0 {
		return 0
	}
	return d / math.Abs(stable) // ±Inf from 0
}

// snap is the limit where x differs from it by rounding only: 0.15 is 50 % above 0.10, as people write it, and not a bit less.
func snap(x, limit float64) float64 {
	if math.Abs(x-limit) <= 1e-12*max(1, math.Abs(limit)) {
		return limit
	}
	return x
}
