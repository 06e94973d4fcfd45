package analysis

// group is the tests of one metric whose limits are nested: whoever keeps the tightest keeps all. They share one part of alpha. The
// evidence of each counts at most as much as that against the tightest limit, so while the canary keeps its limits, all of them together
// roll it back no more often than the tightest alone: several limits cost nothing.
type group struct {
	meter    *meter
	relative bool // to stable; else of the canary by itself
	caps     bool // from above
	share    float64
	tests    []*test
	tightest *test
	ladder   *ladder // of a change that is limited from above, else nil
}

// addTest is the test of a check: the same one for the same limit.
func (e *Engine) addTest(c Check, mt *meter) *test {
	if !c.isTested(mt.metric) {
		return nil
	}
	t := newTest(c, mt, e.cfg)
	for _, other := range e.tests {
		if other.key == t.key {
			return other
		}
	}
	e.tests = append(e.tests, t)
	t.group = e.groupOf(c, mt)
	if l := t.group.ladder; l != nil {
		l.asked.test = t
	}
	t.group.tests = append(t.group.tests, t)
	if first := t.group.tightest; first == nil || t.tighter(first) {
		t.group.tightest = t
	}
	return t
}

func (e *Engine) groupOf(c Check, mt *meter) *group {
	relative, caps := c.Change != "", c.caps(mt.metric)
	for _, g := range e.groups {
		if g.meter == mt && g.relative == relative && g.caps == caps {
			return g
		}
	}
	g := &group{meter: mt, relative: relative, caps: caps}
	if relative && c.Op.isUpper() {
		g.ladder = newLadder(c, mt, e.cfg)
	}
	e.groups = append(e.groups, g)
	return g
}

// tighter reports whether the limit allows less than another of the same group.
func (t *test) tighter(other *test) bool {
	a, b := &t.limit, &other.limit
	sign := 1.0
	switch a.meter.metric.Kind {
	case Mean:
		return a.mean.sign*(a.mean.a-b.mean.a) < 0 || a.mean.sign*(a.mean.b-b.mean.b) < 0
	case Quantile:
		if a.failures {
			sign = -1
		}
		return sign*(a.scale-b.scale) < 0 || sign*(a.limit-b.limit) < 0
	}
	// A fall by d has a=d and b=1−d, so the larger b is the tighter one there: compare what is allowed at a rate that tells them apart.
	return a.rate.a+a.rate.b*smallRate < b.rate.a+b.rate.b*smallRate
}

// smallRate is one at which a fall's slack a and an increase's factor b both order limits as they are nested.
const smallRate = 0.01

// share divides alpha: each tested metric has the same part, split between its groups. All parts sum to 1, so the weighted mean of e-values is
// an e-value whatever depends on what (Vovk & Wang, "E-values: calibration, combination and applications", 2021), and those in force at
// one time are at most that.
func (e *Engine) share() {
	groups := map[*meter]float64{}
	for _, g := range e.groups {
		groups[g.meter]++
	}
	for _, g := range e.groups {
		g.share = 1 / (float64(len(groups)) * groups[g.meter])
	}
}
