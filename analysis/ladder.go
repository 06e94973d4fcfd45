package analysis

import "math"

// ladder brackets how far the canary is from stable in one metric. Each rung is a change that may be ruled out from either side at level beta: that
// the change is at most the rung, and that it is at least the rung. The rungs that stand between what is ruled out from below and from above
// are a confidence sequence: on either side, it errs at any time with a chance of at most beta.
type ladder struct {
	asked asked // one whose change is bracketed, whatever its limit
	rungs []rung
}

// rung is one change, with the wealth of the bets against it. Wealth is kept in half the precision, since there is so much of it.
type rung struct {
	change float64 // as the limit of the check
	sides  [2]rungSide
}

type rungSide struct {
	hypothesis hypothesis
	logS       [rungBets]float32
	ruledOut   bool
}

const rungBets = 2

// The rungs of a change for the worse. Those of a rise are the ladder of B = 1+change; a fall can't be more than everything.
var (
	rises = []float64{0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1, 2, 4}
	falls = []float64{0, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.8}
)

// The bets of either side: on ln ρ of 0.15 and 0.6, in standard deviations for means, and in multiples of a round's alike.
var (
	rungWorse  = hopes(0.15, 0.6)
	rungMean   = []float64{0.07, 0.3}
	rungWithin = []float64{0.5, 1.2}
)

// newLadder is the ladder of a relative check that isTested.
func newLadder(c Check, mt *meter, cfg Config) *ladder {
	changes := rises
	if !c.rises(mt.metric) {
		changes = falls
	}
	l := &ladder{asked: asked{RoleCheck: RoleCheck{Check: c}, meter: mt}}
	for _, change := range changes {
		c.Limit = change
		r := rung{change: change}
		for on := range r.sides {
			r.sides[on].hypothesis = newHypothesis(c, mt, cfg, side(on))
			for g := range r.sides[on].logS {
				r.sides[on].logS[g] = float32(-math.Log(rungBets))
			}
		}
		l.rungs = append(l.rungs, r)
	}
	return l
}

// observe takes one poll. Only rungs on the far side of the change measured so far are bet against: which ones is decided by the polls
// before. Without a change, NaN, none are. With capped, evidence counts at most for nothing.
func (l *ladder) observe(v *view, change, beta float64, capped bool) {
	for i := range l.rungs {
		r := &l.rungs[i]
		switch {
		case r.change < change:
			r.sides[worse].observe(v, beta, capped)
		case r.change > change:
			r.sides[within].observe(v, beta, capped)
		}
	}
}

func (rs *rungSide) observe(v *view, beta float64, capped bool) {
	if rs.ruledOut {
		return
	}
	r, ok := rs.hypothesis.round(v)
	if !ok {
		return
	}
	bets := rungWorse
	switch {
	case rs.hypothesis.side == within:
		bets = rungWithin
	case r.isMean:
		bets = rungMean
	}
	e := 0.0
	for g, bet := range bets {
		log := rs.hypothesis.log(&r, bet)
		if math.IsNaN(log) {
			log = 0
		}
		if capped {
			log = min(0, log)
		}
		log += float64(rs.logS[g])
		rs.logS[g] = float32(max(-math.MaxFloat32, log))
		e += math.Exp(log)
	}
	rs.ruledOut = e >= 1/beta
}

// interval is what the change lies between, on either side with a confidence of 1−beta; NaN where nothing is ruled out. A rung counts where all
// beyond it are ruled out too, so that a wrong bound takes one wrong rung. Where both sides contradict each other the change was not the same
// all the time: what speaks against the canary stays.
func (l *ladder) interval() (lower, upper float64) {
	lower, upper = math.NaN(), math.NaN()
	for i := 0; i < len(l.rungs) && l.rungs[i].sides[worse].ruledOut; i++ {
		lower = l.rungs[i].change
	}
	for i := len(l.rungs) - 1; i >= 0 && l.rungs[i].sides[within].ruledOut; i-- {
		upper = l.rungs[i].change
	}
	if lower >= upper {
		upper = math.NaN()
	}
	return lower, upper
}

// needed is how many more canary trials it takes, at the rates of a stage, until changes of a size and more are ruled out; NaN if it does not
// get there.
func (l *ladder) needed(v *view, size, beta float64) float64 {
	needed, reached := 0.0, false
	for i := len(l.rungs) - 1; i >= 0 && !reached; i-- {
		reached = l.rungs[i].change <= size
		rs := &l.rungs[i].sides[within]
		if rs.ruledOut {
			continue
		}
		growth := rs.hypothesis.growth(v, rungWithin)
		if growth <= 0 {
			return math.NaN()
		}
		wealth := float64(max(rs.logS[0], rs.logS[1]))
		needed = max(needed, math.Ceil((math.Log(1/beta)-wealth)/growth))
	}
	return needed
}

// rungAfter is what is ruled out after which stage: regressions of 2× after the first and 1.3× after those in the middle, as a change in the terms
// of a check on a metric whose stable value is known. After the last stage it is the limit itself.
func (c Check) rungAfter(stage, stages int, m Metric, stable float64) float64 {
	times := 1.3
	switch {
	case stage >= stages-1:
		return c.Limit
	case stage <= 0:
		times = 2
	}
	change := times - 1
	if !c.rises(m) {
		change = 1 - 1/times
		if m.Kind == Ratio && stable < 1 { // of the failures: p_c = times·p_s is a fall of the rest by this
			change = (times - 1) * (1 - stable) / stable
		}
	}
	return max(c.Limit, change)
}
