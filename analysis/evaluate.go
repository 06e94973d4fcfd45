package analysis

import (
	"math"
	"slices"
)

// Evaluate judges the checks in force in a stage. It changes nothing. Nothing is met, and no threshold violated, below minRequests
// canary requests in the stage; rules on counted events and evidence do not wait for them.
func (e *Engine) Evaluate(stage int, minRequests int64) Report {
	r := e.Peek(stage, minRequests)
	v := &e.evaluation
	r.Findings = slices.Clone(r.Findings)
	for i, a := range v.asked {
		f, c := &r.Findings[i], v.compare(a)
		if f.Lately {
			c = v.compareLately(a)
		}
		f.Needed = v.needed(a, c, f.Verdict)
		f.Note = v.note(a, c, *f)
	}
	return r
}

// Peek is Evaluate without what is said for people: Needed is NaN and Note empty. It allocates nothing: Findings are overwritten by the next
// Peek or Evaluate.
func (e *Engine) Peek(stage int, minRequests int64) Report {
	v := &e.evaluation
	v.Engine, v.stage, v.least = e, stage, max(1, float64(minRequests))
	v.asked, v.findings = v.asked[:0], v.findings[:0]
	for _, a := range e.asked {
		if a.Stage == EveryStage || a.Stage == stage {
			v.asked = append(v.asked, a)
		}
	}
	v.now, v.gate = v.weigh(false), v.weigh(true)
	for _, a := range v.asked {
		v.findings = append(v.findings, v.finding(a))
	}
	r := Report{Findings: v.findings, EValue: v.now.sum, Mismatch: e.traffic.mismatch(e.weight)}
	if len(e.tests) == 0 {
		r.EValue = math.NaN()
	}
	for _, f := range r.Findings {
		r.Safety = r.Safety || f.Safety
	}
	r.Verdict, r.Gate = v.verdict(r.Findings, false), v.verdict(r.Findings, true)
	if r.Gate == Violated {
		r.Blame = v.blame(r.Findings)
	}
	return r
}

// evaluation is one Peek.
type evaluation struct {
	*Engine
	least     float64 // canary requests in the stage
	stage     int
	asked     []*asked
	findings  []Finding
	now, gate evidence // of guards and stage checks, and with the promotion checks
}

// evidence is what tests say together.
type evidence struct {
	sum     float64 // of parts of e-values; 1/alpha is enough to roll back
	largest *test   // of the largest part of the sum
}

// weigh sums the evidence against the checks: of each group, that of the test in force that has the most.
func (v *evaluation) weigh(promotion bool) evidence {
	var ev evidence
	most := 0.0
	for _, g := range v.groups {
		e, of := 0.0, (*test)(nil)
		for _, a := range v.asked {
			if a.test != nil && a.test.group == g && (promotion || a.Role != RolePromotion) && (of == nil || a.test.evidence() > e) {
				e, of = a.test.evidence(), a.test
			}
		}
		ev.sum += g.share * e
		if g.share*e > most {
			ev.largest, most = of, g.share*e
		}
	}
	return ev
}

// enough reports whether evidence suffices to roll back.
func (v *evaluation) enough(sum float64) bool { return sum >= 1/v.cfg.Alpha }

// finding answers one check.
func (v *evaluation) finding(a *asked) Finding {
	c := v.compare(a)
	f := Finding{
		Check: a.Check.Text, Metric: a.Check.Metric, Role: a.Role, Change: c.change, Limit: a.Check.Limit,
		StableEstimate: orNaN(c.stable), CanaryEstimate: orNaN(c.canary),
		EValue: math.NaN(), Lower: math.NaN(), Upper: math.NaN(), Needed: math.NaN(), Allowed: math.NaN(),
	}
	if c.allowed > 0 {
		f.Allowed = c.allowed
	}
	v.count(&f, a)
	if a.test != nil {
		f.EValue = a.test.evidence()
		f.Lower, f.Upper = a.interval()
	}
	f.Verdict = v.judge(a, c)
	f.Safety = f.Verdict == Violated && a.Check.isRule(a.meter.metric)
	if f.Verdict == Violated && a.test != nil && c.ok && c.holds {
		v.showLately(&f, a)
	}
	f.widen()
	return f
}

// widen makes the interval hold the estimate beside which it is shown. They are of different times: the interval is of the whole rollout, with the floor, and keeps what was
// ruled out once, while the estimate is of the stage alone.
func (f *Finding) widen() {
	if f.Change < f.Lower { // false for NaN
		f.Lower = f.Change
	}
	if f.Change > f.Upper {
		f.Upper = f.Change
	}
	if math.IsInf(f.Upper, 1) { // from nothing to something
		f.Upper = math.NaN()
	}
}

func orNaN(e estimate) float64 {
	if !e.ok {
		return math.NaN()
	}
	return e.value
}

// count fills in what was counted.
func (v *evaluation) count(f *Finding, a *asked) {
	mt := a.meter
	stable, k := v.stableOf(mt), mt.metric.Kind
	f.StableN, f.CanaryN = stable.observations(k), mt.canary.observations(k)
	f.StableX, f.CanaryX = stable.x, mt.canary.x
	switch {
	case mt.metric.Name == TotalRequests:
		f.StableN, f.CanaryN = v.requests.Stable, v.requests.Canary
		f.StableX, f.CanaryX = f.StableN, f.CanaryN
	case a.Check.isRule(mt.metric):
		f.CanaryN, f.CanaryX = mt.trials, mt.events
	case k == Quantile || k == Value:
		f.StableX, f.CanaryX = math.NaN(), math.NaN()
	}
}

// judge is the verdict on a check.
func (v *evaluation) judge(a *asked, c comparison) Verdict {
	m := a.meter.metric
	switch {
	case v.convicted(a):
		return Violated
	case c.unclear:
		return Undecided
	case !c.ok:
		return NoData
	case a.Check.isRule(m):
		return when(c.holds, Met, Violated)
	case c.holds:
		return when(v.passes(a, c), Met, Undecided)
	case m.Kind == Count && a.Check.Change == "": // a precondition: more may come
		return Undecided
	case a.test != nil:
		return Undecided
	case v.requests.Canary < v.least:
		return Undecided
	case v.cfg.Method == Sequential && a.streak < valueStreak:
		return Undecided
	}
	return Violated
}

func when(yes bool, then, otherwise Verdict) Verdict {
	if yes {
		return then
	}
	return otherwise
}

// convicted reports whether the evidence is enough and this check's test brought it: the largest part, or enough by itself.
func (v *evaluation) convicted(a *asked) bool {
	if a.test == nil {
		return false
	}
	if v.enough(a.test.group.share * a.test.evidence()) {
		return true
	}
	if v.enough(v.now.sum) {
		return v.now.largest == a.test
	}
	return a.Role == RolePromotion && v.enough(v.gate.sum) && v.gate.largest == a.test
}

// showLately shows the polls since the evidence began to rise in place of the stage, where they are beyond the limit and the stage is not. What was ruled out before the change
// does not hold any more.
func (v *evaluation) showLately(f *Finding, a *asked) {
	c := v.compareLately(a)
	if !c.ok || c.holds {
		return
	}
	stable, canary := a.test.rise.stable, a.test.rise.canary
	f.Lately, f.Upper = true, math.NaN()
	f.StableN, f.StableX, f.CanaryN, f.CanaryX = stable.n, stable.x, canary.n, canary.x
	f.StableEstimate, f.CanaryEstimate, f.Change = orNaN(c.stable), orNaN(c.canary), c.change
}

// interval is that of the ladder of the same change.
func (a *asked) interval() (lower, upper float64) {
	if !a.isOnLadder() {
		return math.NaN(), math.NaN()
	}
	return a.test.group.ladder.interval()
}

// passes reports whether an estimate within the limit is all that is asked, or what it takes to go on is shown too.
func (v *evaluation) passes(a *asked, c comparison) bool {
	if v.cfg.Advance == AdvanceEstimate || a.test == nil {
		return true
	}
	if v.gate.sum >= mostDoubt {
		return false
	}
	if a.test.proven || v.cfg.Advance == AdvanceProof {
		return a.test.proven
	}
	return v.climbed(a, c)
}

// climbed reports whether the ladder has ruled out what it is to after the stage. A limit that is not on a change has no rungs: it is to be shown
// after the last stage.
func (v *evaluation) climbed(a *asked, c comparison) bool {
	if !v.onWay(a) {
		return v.stage < v.cfg.Stages-1
	}
	_, upper := a.interval()
	return upper <= a.Check.rungAfter(v.stage, v.cfg.Stages, a.meter.metric, c.stable.value)
}

// onWay reports whether the check asks for a rung that is not the last.
func (v *evaluation) onWay(a *asked) bool {
	return v.cfg.Advance == AdvanceLadder && v.stage < v.cfg.Stages-1 && a.isOnLadder()
}

// isOnLadder reports whether the check is on a change that is bracketed.
func (a *asked) isOnLadder() bool { return a.test.group.ladder != nil && a.Check.Op.isUpper() }

// needed is how many more canary requests it takes, about: to the evidence, the proof or the number asked for.
func (v *evaluation) needed(a *asked, c comparison, verdict Verdict) float64 {
	if verdict != Undecided {
		return math.NaN()
	}
	proof := v.cfg.Advance != AdvanceEstimate && c.holds
	switch {
	case a.meter.metric.Name == TotalRequests:
		return max(1, math.Ceil(a.Check.Limit-c.value))
	case a.test != nil && proof && v.onWay(a):
		size := a.Check.rungAfter(v.stage, v.cfg.Stages, a.meter.metric, c.stable.value)
		return a.test.group.ladder.needed(a.meter.stageView(), size, v.cfg.Beta)
	case a.test != nil && proof:
		return a.test.needed(a.meter.stageView(), 1/v.cfg.Beta, within)
	case a.test != nil:
		return a.test.needed(a.meter.stageView(), 1/(v.cfg.Alpha*a.test.group.share), worse)
	case v.requests.Canary < v.least:
		return math.Ceil(v.least - v.requests.Canary)
	}
	return math.NaN()
}

// verdict puts the findings together. Guards without data do not block, unless proof is asked.
func (v *evaluation) verdict(findings []Finding, gate bool) Verdict {
	noData, undecided := v.requests.Canary <= 0, false
	for i, f := range findings {
		if f.Role == RolePromotion && !gate {
			continue
		}
		guard := f.Role == RoleGuard
		switch f.Verdict {
		case Violated:
			return Violated
		case NoData:
			noData = noData || !guard
			undecided = undecided || (v.cfg.Advance != AdvanceEstimate && v.asked[i].test != nil)
		case Undecided:
			undecided = true
		}
	}
	switch {
	case gate && v.enough(v.gate.sum):
		return Violated
	case noData:
		return NoData
	case undecided || (gate && (v.requests.Canary < v.least || v.traffic.off)):
		return Undecided
	}
	return Met
}

// blame is the check that weighs most: a rule that fired, then the largest part of the evidence, then the first in order.
func (v *evaluation) blame(findings []Finding) string {
	ev := v.gate
	if v.enough(v.now.sum) {
		ev = v.now
	}
	first, largest := "", ""
	for i, f := range findings {
		switch {
		case f.Safety:
			return f.Check
		case largest == "" && v.enough(ev.sum) && v.asked[i].test == ev.largest && ev.largest != nil:
			largest = f.Check
		case first == "" && f.Verdict == Violated:
			first = f.Check
		}
	}
	if largest != "" {
		return largest
	}
	return first
}
