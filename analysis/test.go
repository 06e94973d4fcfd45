package analysis

import "math"

// test is the sequential test of one limit on a metric. Checks with the same metric and limit share one. It sees the whole rollout, also
// before the stage that asks for it.
type test struct {
	key      string
	group    *group
	limit    hypothesis // against it: worse
	opposite hypothesis // against its opposite: within

	worse  mixture
	within mixture // without bets where no proof is asked
	proven bool    // within has reached 1/beta
	rise   rise
	value  float64 // of worse
}

// rise is what both versions did since the evidence against a limit was least: about since a late regression began, which the numbers of a long
// stage hardly show.
type rise struct {
	stable, canary past    // sums
	lowest         float64 // evidence; 0 before there is any
}

func (r *rise) observe(v *view, e float64) {
	if r.lowest == 0 || e <= r.lowest {
		*r = rise{lowest: e}
		return
	}
	r.stable = past{n: r.stable.n + v.stable.N, x: r.stable.x + v.stable.X}
	r.canary = past{n: r.canary.n + v.canary.N, x: r.canary.x + v.canary.X}
}

// newTest is the test of a check that isTested.
func newTest(c Check, mt *meter, cfg Config) *test {
	t := &test{limit: newHypothesis(c, mt, cfg, worse), opposite: newHypothesis(c, mt, cfg, within)}
	t.key = t.limit.key()
	_, logW := t.limit.bets()
	t.worse, t.value = newMixture(logW), 1
	if cfg.Advance != AdvanceEstimate {
		_, logW = t.opposite.bets()
		t.within = newMixture(logW)
	}
	return t
}

// bets are a hypothesis's and the logs of their weights. Those of within are multiples of the round's alike.
func (h *hypothesis) bets() (bets, logW []float64) {
	switch {
	case h.side == within:
		return withinBets, withinWeights
	case h.meter.metric.Kind == Mean:
		return meanBets, meanWeights
	}
	return worseHopes, worseWeights
}

// log is that of the factor of one of a hypothesis's bets.
func (h *hypothesis) log(r *round, bet float64) float64 {
	if h.side == within {
		return r.fraction(bet)
	}
	return r.factor(bet)
}

// observe takes one poll. With capped, evidence against the canary is dropped. It comes before the meter learns from it:
// thresholds, rates and variances are of the polls before.
func (t *test) observe(v *view, hazard, beta float64, capped bool, scratch []float64) {
	if t.limit.take(v, &t.worse, firstShare, hazard, capped, scratch) {
		t.value = t.worse.value()
		t.rise.observe(v, t.value)
	}
	if len(t.within.logS) > 0 && t.opposite.take(v, &t.within, 1, 0, capped, scratch) {
		t.proven = t.proven || t.within.value() >= 1/beta
	}
}

// take lets a mixture bet on a poll, and reports whether there was any evidence.
func (h *hypothesis) take(v *view, m *mixture, first, later float64, capped bool, scratch []float64) bool {
	r, ok := h.round(v)
	if !ok {
		return false
	}
	bets, _ := h.bets()
	logE := scratch[:len(bets)]
	for g, bet := range bets {
		logE[g] = h.log(&r, bet)
	}
	m.begin(first, later)
	m.multiply(logE, capped)
	return true
}

// evidence is the test's E-value against its limit, as far as it counts: that against the tightest limit of its group bounds it.
func (t *test) evidence() float64 { return min(t.value, t.group.tightest.value) }

// needed is how many more canary trials it takes, at the rates of a stage, until the evidence reaches a target; NaN if it does not get there.
func (t *test) needed(v *view, target float64, on side) float64 {
	h, wealth := &t.limit, t.worse.best()
	if on == within {
		h, wealth = &t.opposite, t.within.best()
	}
	bets, _ := h.bets()
	growth := h.growth(v, bets)
	if growth <= 0 || math.IsInf(wealth, -1) {
		return math.NaN()
	}
	return max(0, math.Ceil((math.Log(target)-wealth)/growth))
}

// growth is by how much the best bet's log wealth grows per canary trial at a view's rates, or 0 if none grows.
func (h *hypothesis) growth(v *view, bets []float64) float64 {
	n := v.canary.N
	if h.meter.metric.Kind == Quantile {
		n = v.canaryTails.total()
	}
	r, ok := h.round(v)
	if !ok || n <= 0 {
		return 0
	}
	best := 0.0
	for _, bet := range bets {
		best = max(best, h.log(&r, bet)/n)
	}
	return best
}
