package analysis

import (
	"math"
	"slices"
)

// Engine judges one rollout. It is not safe for concurrent use. Everything it knows is in its State.
type Engine struct {
	cfg        Config
	hazard     float64 // share of the unspent wealth that begins to bet at each poll
	meters     []*meter
	tests      []*test
	groups     []*group
	asked      []*asked
	conditions []condition

	poll     int64 // the last number, -1 before the first
	stage    int   // -1 before the first
	weight   int   // in basis points
	requests Requests
	frozen   bool  // after the last poll
	ignored  int64 // samples that could not be counted
	traffic  traffic

	scratch    tally
	floats     []float64
	evaluation evaluation
}

// asked is a check with what judges it.
type asked struct {
	RoleCheck
	meter  *meter
	test   *test // nil where there is none
	streak int   // polls in a row with the latest value beyond the limit
}

const (
	bake          = 10_000 // basis points: stable gets no traffic
	defaultPolls  = 1000
	spendEvery    = 8 // polls: late bets begin together, which costs a late regression a few polls and saves time
	scratchFloats = 512
	valueStreak   = 10 // polls in a row that a value is beyond its limit before that counts, where the method is sequential
	mostDoubt     = 10 // combined evidence against the canary from which on nothing counts as proven
)

// New is an Engine that has seen nothing. Errors name everything that is wrong with cfg.
func New(cfg Config) (*Engine, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	e := &Engine{cfg: cfg, floats: make([]float64, scratchFloats)}
	polls := cfg.PollsPerWindow
	if polls == 0 {
		polls = defaultPolls
	}
	e.hazard = 1 / float64(polls)
	e.reset()
	return e, nil
}

// reset forgets everything.
func (e *Engine) reset() {
	e.meters, e.tests, e.groups, e.asked, e.conditions = nil, nil, nil, nil, nil
	e.poll, e.stage, e.weight = -1, EveryStage, 0
	e.requests, e.frozen, e.ignored, e.traffic = Requests{}, false, 0, newTraffic()
	for _, m := range e.cfg.Metrics {
		e.meters = append(e.meters, &meter{metric: m})
	}
	for _, rc := range e.cfg.Checks {
		a := &asked{RoleCheck: rc, meter: e.meter(rc.Check.Metric)}
		if e.cfg.Method == Sequential {
			a.test = e.addTest(rc.Check, a.meter)
		}
		e.asked = append(e.asked, a)
	}
	for _, role := range []Role{RolePromotion, RoleStage, RoleGuard} { // the order of the findings
		slices.SortStableFunc(e.asked, func(a, b *asked) int { return boolOrder(b.Role == role, a.Role == role) })
	}
	e.share()
	for _, c := range e.cfg.FreezeWhen {
		mt := e.meter(c.Metric)
		if mt.ring == nil {
			mt.ring = &ring{}
		}
		e.conditions = append(e.conditions, condition{Condition: c, meter: mt})
	}
}

func boolOrder(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func (e *Engine) meter(name string) *meter {
	i := slices.IndexFunc(e.meters, func(m *meter) bool { return m.metric.Name == name })
	return e.meters[i] // Validate has found it
}

// BeginStage says that a stage with a weight in basis points begins. The windows begin anew, and late bets are put forward where
// the weight changes. The same stage and weight again change nothing.
func (e *Engine) BeginStage(stage, weight int) {
	if e.stage == stage && e.weight == weight {
		return
	}
	for _, mt := range e.meters {
		mt.beginStage(e.weight < bake)
	}
	for _, a := range e.asked {
		a.streak = 0
	}
	if e.weight != weight {
		e.traffic.beginWeight()
	}
	if e.stage >= 0 && e.weight != weight {
		for _, t := range e.tests {
			if t.worse.begun {
				t.worse.spend(weightShare)
				t.value = t.worse.value()
			}
		}
	}
	e.stage, e.weight, e.requests = stage, weight, Requests{}
}

// Observe takes in one poll, and reports whether it did. A number that is not above the last one was seen before and has no
// effect. A sample with numbers that are negative or not finite, or with buckets that do not fit their bounds, is left out and counted as
// ignored. Polls of another weight than the stage's count for the tests, which compare within a poll, and not for the stage's windows.
func (e *Engine) Observe(p Poll) bool {
	if p.Number <= e.poll {
		return false
	}
	e.poll = p.Number
	for _, mt := range e.meters {
		s, there := p.Samples[mt.metric.Name]
		if mt.take(s, there) {
			e.ignored++
		}
		if mt.ring != nil {
			mt.ring.add(mt.sample, mt.usable)
		}
	}
	before := e.frozen
	e.frozen = e.isFrozen()
	if before {
		return true // decided by the polls before, so leaving this one out is no choice by its outcome
	}
	if !p.Settling {
		e.compareBoth(p)
	}
	for _, mt := range e.meters {
		if mt.usable && !e.frozen {
			mt.learn(p.Settling)
		}
	}
	return true
}

// compareBoth lets the tests and the stage's windows take the poll.
func (e *Engine) compareBoth(p Poll) {
	e.bet(e.frozen)
	if e.frozen {
		return
	}
	ofStage := e.stage < 0 || p.Weight == 0 || p.Weight == e.weight
	if ofStage {
		e.count(p.Requests)
	}
	if ofStage && p.Weight > 0 && p.Weight < bake {
		e.traffic.observe(p)
	}
}

// bet lets the tests take the poll. The poll that begins to freeze is chosen by its own outcome. Dropping it whole would favour one side, so it
// keeps what speaks for the canary: min(e,1) has an expectation of at most 1 as well.
func (e *Engine) bet(capped bool) {
	hazard := 0.0
	if e.poll%spendEvery == 0 {
		hazard = min(1, spendEvery*e.hazard)
	}
	for _, mt := range e.meters {
		if mt.usable {
			mt.view.of(mt.sample)
		}
	}
	for _, t := range e.tests {
		if t.limit.meter.usable {
			t.observe(&t.limit.meter.view, hazard, e.cfg.Beta, capped, e.floats)
		}
	}
	for _, g := range e.groups {
		if g.ladder != nil && g.meter.usable {
			g.ladder.observe(&g.meter.view, e.compare(&g.ladder.asked).change, e.cfg.Beta, capped)
		}
	}
}

// count adds the poll to the stage's windows.
func (e *Engine) count(r Requests) {
	if countable(r.Stable) && countable(r.Canary) {
		e.requests.Stable += r.Stable
		e.requests.Canary += r.Canary
	} else {
		e.ignored++
	}
	for _, mt := range e.meters {
		if mt.usable {
			mt.stable.add(mt.sample.Stable)
			mt.canary.add(mt.sample.Canary)
		}
	}
	for _, a := range e.asked {
		if a.meter.metric.Kind == Value && a.meter.usable {
			e.watchValue(a)
		}
	}
}

// watchValue counts the polls in a row with a value beyond the limit.
func (e *Engine) watchValue(a *asked) {
	if c := e.compare(a); !c.ok || c.holds {
		a.streak = 0
		return
	}
	a.streak = min(a.streak+1, valueStreak)
}

// Ignored is how many samples could not be counted.
func (e *Engine) Ignored() int64 { return e.ignored }

// Settle is how long after a weight change requests should be left out of comparisons, in seconds: the 99th percentile of the durations
// of stable's requests, so that slow ones from before are through. NaN while no duration was seen.
func (e *Engine) Settle() float64 {
	settle := math.NaN()
	for _, mt := range e.meters {
		if !mt.isDuration() || mt.seenTails.total() <= 0 {
			continue
		}
		if q, _ := quantile(mt.bounds, mt.seen, mt.seenTails.total(), 0.99); !(settle >= q) {
			settle = q
		}
	}
	return settle
}
