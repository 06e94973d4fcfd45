package plan

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// What a stage takes as long as, where it is no check.
const (
	becauseDuration = "duration"
	becauseRequests = "min_requests"
	becauseSettling = "settling" // requests count once the traffic has settled after the weight change
)

// walk goes through the stages: how long each takes, and what it sees.
func (p *planner) walk() {
	for i, s := range p.Stages {
		l := p.begin(i)
		out := Leg{Name: s.Name, Weight: s.Weight, Duration: s.Duration.Seconds(), Because: becauseDuration}
		takes := p.takes(l, &out)
		l.lasts = min(takes, (s.Duration + s.MaxHold).Seconds())
		if takes > l.lasts {
			p.cannotPass(s, out.Because, takes)
		}
		p.legs = append(p.legs, l)
		out.Takes, out.Requests = l.lasts, l.rate*l.lasts
		out.Held = p.held(l)
		for _, c := range p.watches(i) {
			out.Checks = append(out.Checks, p.seen(c, l))
		}
		p.out.Stages = append(p.out.Stages, out)
		p.out.Planned += out.Duration
		p.out.Takes += out.Takes
		if s.Approval {
			p.out.Approvals++
		}
	}
}

// takes is how long a stage takes, in seconds, +Inf if it does not end: its duration, or until enough requests were seen and what has to be shown was.
func (p *planner) takes(l leg, out *Leg) float64 {
	s := p.Stages[l.index]
	takes := s.Duration.Seconds()
	longer := func(t float64, because string) {
		if t > takes {
			takes, out.Because = t, because
		}
	}
	counted := p.settle // requests count for the stage once they are compared
	if s.MinRequests > 0 {
		needs := float64(s.MinRequests) / l.rate
		because := becauseRequests
		if counted > needs {
			because = becauseSettling
		}
		longer(counted+needs, because)
	}
	for _, c := range p.Config.Checks {
		if c.Check.Metric == analysis.TotalRequests && (c.Stage == l.index || c.Stage == analysis.EveryStage) {
			longer(counted+c.Check.Limit/l.rate, c.Check.Text)
		}
	}
	for _, c := range p.inForce(l.index) {
		if null, asked := p.toShow(c, l.index); asked {
			longer(p.untilShown(c, null, l), c.Check.Text)
		}
	}
	return takes
}

// toShow is what has to be shown of a check at the end of a stage, if anything.
func (p *planner) toShow(c probe, stage int) (analysis.Null, bool) {
	check := c.Check
	switch p.Config.Advance {
	case analysis.AdvanceProof:
	case analysis.AdvanceLadder:
		if stage < p.Config.Stages-1 {
			change, ok := p.Config.Rung(check, stage, c.Metric, c.subject.Value)
			if !ok {
				return analysis.Null{}, false
			}
			check.Limit = max(change, check.Limit)
		}
	default:
		return analysis.Null{}, false
	}
	_, proof, ok := p.Config.Null(check, c.Metric)
	return proof, ok
}

// untilShown is how long a stage takes until a canary like stable has shown that it keeps a limit, in seconds.
func (p *planner) untilShown(c probe, null analysis.Null, l leg) float64 {
	of := func(ratio float64) pace { return c.subject.forProof(null, ratio) }
	k := c.Metric.Kind
	missing := p.proofLevel(k) - p.grown(k, p.legs, of).mean
	if missing <= 0 {
		return 0
	}
	began, lasts := p.began(l.index), 0.0
	for range doubtRounds {
		lasts = p.settle + missing/(of(l.ratio).over(p.doubt(k, began+lasts/2)).mean*l.rate) // +Inf where nothing grows
	}
	return lasts
}

// doubtRounds is how often a time is found anew that depends on how much the engine doubts a variance by then.
const doubtRounds = 8

// seen is what a check sees in a stage whose length is known.
func (p *planner) seen(c probe, l leg) Seen {
	out := Seen{Check: c.Check.Text, Metric: c.Metric.Name, Role: c.Role}
	if c.OnLadder || p.Config.Advance != analysis.AdvanceEstimate {
		out.RulesOut = some(p.ruledOut(c))
	}
	for _, factor := range Factors {
		out.Speeds = append(out.Speeds, p.speed(c, l, factor))
	}
	return out
}

// ruledOut is the limit nearest to stable that a canary like stable is expected to have shown to keep by the end of the legs so far; NaN if there is
// none.
func (p *planner) ruledOut(c probe) float64 {
	shown := func(limit float64) bool {
		check := c.Check
		check.Limit = limit
		_, proof, _ := p.Config.Null(check, c.Metric)
		of := func(ratio float64) pace { return c.subject.forProof(proof, ratio) }
		return p.grown(c.Metric.Kind, p.legs, of).mean >= p.proofLevel(c.Metric.Kind)
	}
	near, far := p.search(c)
	if !shown(far) {
		return math.NaN()
	}
	for range 60 {
		if mid := near + (far-near)/2; shown(mid) {
			far = mid
		} else {
			near = mid
		}
	}
	return far
}

// mostChange is the largest change that is looked at.
const mostChange = 20

// search is where a limit may be: nearest to stable, and furthest from it.
func (p *planner) search(c probe) (near, far float64) {
	s := c.subject
	switch rises, caps := c.Check.Rises(c.Metric), c.Check.Caps(c.Metric); {
	case c.Check.Change != "" && rises:
		return 0, mostChange
	case c.Check.Change != "":
		return 0, 0.999
	case caps && s.Kind == analysis.Ratio:
		return s.Value, 1 - 1e-9
	case caps:
		return s.Value, s.Value * mostChange
	}
	return s.Value, s.Value / mostChange
}

// speed is how soon a stage catches a regression that sets in as it begins, by one check.
func (p *planner) speed(c probe, l leg, factor float64) Speed {
	out := Speed{Factor: factor}
	a, beyond := c.subject.against(c.limit, factor, l.ratio)
	switch {
	case c.limit.B != 0 && l.ratio <= 0:
		out.Blind = true
		return out
	case a.mean <= 0:
		out.Allowed = true
		return out
	}
	level := p.level(c, beyond)
	wait := p.settle + p.Interval.Seconds()
	if before := p.before(l.index); before == 0 {
		wait += p.warmUp(c, l)
	} else { // bets that began before have lost as much as they would win now, or all
		level += min(lateLoss, a.mean*before)
	}
	began, median := p.began(l.index), wait
	for range doubtRounds {
		median = wait + untilReached(a.over(p.doubt(c.Metric.Kind, began+median/2)), level)/l.rate
	}
	doubted := a.over(p.doubt(c.Metric.Kind, began+min(median, l.lasts)/2))
	chance := reached(doubted.times(max(0, l.lasts-wait)*l.rate), level)
	if c.Role == analysis.RolePromotion {
		median = max(median, l.lasts)
	}
	out.Median, out.Requests, out.Chance = some(median), some(median*l.rate), chance
	return out
}

// before are the canary requests that were compared before a stage.
func (p *planner) before(stage int) float64 {
	n := 0.0
	for _, l := range p.legs[:min(stage, len(p.legs))] {
		n += p.compared(l, l.lasts)
	}
	return n
}

// untilReached is after how many canary requests the evidence is at a level with a chance of one half.
func untilReached(a pace, level float64) float64 {
	low, high := 0.0, 2*level/a.mean
	for range 60 {
		if mid := (low + high) / 2; reached(a.times(mid), level) < 0.5 {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

// held is the chance that an estimate of identical versions is beyond a limit at the end of a stage, as if the metrics were independent.
func (p *planner) held(l leg) float64 {
	n, stable := p.compared(l, l.lasts), p.stableOf(l)
	var groups []string // in order, so that the product is the same every time
	worst := map[string]float64{}
	for _, c := range p.inForce(l.index) {
		if !slices.Contains(groups, c.group()) {
			groups = append(groups, c.group())
		}
		worst[c.group()] = max(worst[c.group()], c.exceeds(n*c.subject.share(), stable*c.subject.share(), 1))
	}
	passes := 1.0
	for _, g := range groups {
		passes *= 1 - worst[g]
	}
	return 1 - passes
}

// stableOf are the requests of stable that a stage compares with: its own, or what was kept of the last stage with both.
func (p *planner) stableOf(l leg) float64 {
	if l.ratio > 0 {
		return p.compared(l, l.lasts) * l.ratio
	}
	stable := 0.0
	for _, before := range p.legs {
		if before.ratio > 0 {
			stable = before.ratio * p.compared(before, before.lasts)
		}
	}
	return stable
}

// exceeds is the chance that the estimate of a canary that is so many times worse than stable (1: like it) is beyond the limit, of so many trials or
// observations: that of a normal one.
func (c probe) exceeds(nc, ns, factor float64) float64 {
	s, n := c.subject, c.limit
	if nc <= 0 || (n.B != 0 && ns <= 0) {
		return 0
	}
	var off, varC, varS, b float64
	switch {
	case s.Kind == analysis.Mean:
		sd := s.Value * s.Spread
		canary := s.Value * factor
		if n.AtLeast {
			canary = s.Value / factor
		}
		off, b, varC, varS = n.A+n.B*s.Value-canary, n.B, sd*sd, sd*sd
		if n.AtLeast {
			off = -off
		}
	case s.Kind == analysis.Quantile: // the logarithm of a quantile, by its density
		sd := s.Spread * math.Sqrt(s.Quantile*(1-s.Quantile)) / distuv.UnitNormal.Prob(distuv.UnitNormal.Quantile(s.Quantile))
		off, b, varC, varS = math.Log(n.Scale), 1, sd*sd, sd*sd
		if n.Scale == 0 {
			off, b = math.Log(n.Threshold/s.Value), 0
		}
		if n.Failures {
			off += math.Log(factor)
		} else {
			off -= math.Log(factor)
		}
		if n.Failures {
			off = -off
		}
	default:
		pc, ps := s.rates(n, factor)
		off, b = n.A+n.B*ps-pc, n.B
		varC, varS = pc*(1-pc), ps*(1-ps)
		if n.Counted {
			varC, varS = pc, ps
		}
	}
	v := s.phi * varC / nc
	if b != 0 {
		v += s.phi * b * b * varS / ns
	}
	if v <= 0 {
		if off < 0 {
			return 1
		}
		return 0
	}
	return distuv.UnitNormal.Survival(off / math.Sqrt(v))
}
