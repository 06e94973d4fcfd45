package plan

import (
	"fmt"
	"math"
	"math/rand/v2"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// tolerable is the chance at which a rule's rate is called tolerable.
const tolerable = 0.01

// rules says what rules on counted events do to a canary like stable. Of rules that allow the same, the one that looks at most requests counts.
func (p *planner) rules() {
	at := map[string]int{}
	for _, c := range p.Config.Checks {
		s, known := p.subjects[c.Check.Metric]
		if !known || !c.Check.IsRule(s.Metric) {
			continue
		}
		r := Rule{Check: c.Check.Text, Metric: s.Name}
		for _, l := range p.legs { // events count from the rollout's start, whenever the rule is asked
			r.Requests += l.rate * l.lasts * s.share()
			if l.index == c.Stage {
				break
			}
		}
		allowed := most(c.Check)
		if !s.Assumed {
			r.Rate, r.Chance = some(s.Value), some(breaks(s.Value*r.Requests, allowed))
		}
		r.Tolerable = some(tolerableRate(r.Requests, allowed))
		key := fmt.Sprintf("%s|%g", s.Name, allowed)
		i, there := at[key]
		switch {
		case !there:
			at[key] = len(p.out.Rules)
			p.out.Rules = append(p.out.Rules, r)
		case r.Requests > p.out.Rules[i].Requests:
			p.out.Rules[i] = r
		}
	}
}

// most is how many events a rule allows.
func most(c analysis.Check) float64 {
	if c.Op == analysis.Below {
		return max(0, math.Ceil(c.Limit)-1)
	}
	return math.Floor(c.Limit)
}

// breaks is the chance of more events than are allowed, of so many on average: 1−e^−mean where none is, as 1−(1−q)^n for a small q.
func breaks(mean, allowed float64) float64 {
	if mean <= 0 {
		return 0
	}
	if allowed == 0 {
		return -math.Expm1(-mean)
	}
	return 1 - distuv.Poisson{Lambda: mean}.CDF(allowed)
}

// tolerableRate is the rate of events at which a rule is broken with the chance that is called tolerable.
func tolerableRate(trials, allowed float64) float64 {
	low, high := 0.0, 10*(allowed+1)
	for range 100 {
		if mid := (low + high) / 2; breaks(mid, allowed) < tolerable {
			low = mid
		} else {
			high = mid
		}
	}
	return high / trials
}

// How much is simulated of a raw rule: looks of a stage beyond which polls are taken together, which makes the chance a little smaller.
const (
	thresholdRuns  = 400
	thresholdLooks = 300
)

// threshold simulates how often a raw rule takes back a version that is the same as stable. The rule looks at every poll at what the stage's estimates are,
// once there are enough requests.
func (p *planner) threshold() {
	if p.Config.Method != analysis.Threshold {
		return
	}
	raw := p.rawProbes()
	rng := rand.New(rand.NewPCG(1, 2)) // the same answer to the same question
	failed := 0
	for range thresholdRuns {
		for _, l := range p.legs {
			if p.fails(rng, l, raw) {
				failed++
				break
			}
		}
	}
	p.out.Threshold = some(float64(failed) / thresholdRuns)
}

// rawProbes are the checks of the raw rule with their limits as they are: without a floor or cohort spread.
func (p *planner) rawProbes() []probe {
	cfg := p.Config
	cfg.Method, cfg.Advance, cfg.Floor, cfg.CohortSpread = analysis.Sequential, analysis.AdvanceEstimate, 0, nil
	var out []probe
	for _, c := range cfg.Checks {
		s, ok := p.subjects[c.Check.Metric]
		if !ok {
			continue
		}
		limit, _, tested := cfg.Null(c.Check, s.Metric)
		known := !math.IsNaN(s.Value)
		if !known && c.Check.Change != "" {
			s.Value, known = 1, true
		}
		if tested && known {
			out = append(out, probe{Tested: analysis.Tested{RoleCheck: c, Metric: s.Metric}, subject: s, limit: limit, known: true})
		}
	}
	return out
}

// fails plays one stage of a canary that is the same as stable, and reports whether the raw rule takes it back.
func (p *planner) fails(rng *rand.Rand, l leg, raw []probe) bool {
	s := p.Stages[l.index]
	looks := int(min(thresholdLooks, max(1, l.lasts/p.Interval.Seconds())))
	step := l.lasts / float64(looks)
	var walkers []*walker // in order: chance is drawn for one after the other
	of := map[string]*walker{}
	for _, c := range raw {
		if of[c.Metric.Name] == nil {
			of[c.Metric.Name] = &walker{subject: c.subject}
			walkers = append(walkers, of[c.Metric.Name])
		}
	}
	n := l.rate * step
	for k := 1; k <= looks; k++ {
		for _, w := range walkers {
			w.step(rng, n, n*l.ratio)
		}
		if n*float64(k) < float64(s.MinRequests) {
			continue
		}
		for _, c := range raw {
			asked := (c.Stage == analysis.EveryStage || c.Stage == l.index) && (c.Role != analysis.RolePromotion || k == looks)
			if asked && of[c.Metric.Name].isBeyond(c) {
				return true
			}
		}
	}
	return false
}

// walker draws what two identical versions add up to in a stage: events, or the sum of normal observations.
type walker struct {
	subject        subject
	nc, xc, ns, xs float64
}

func (w *walker) step(rng *rand.Rand, nc, ns float64) {
	nc, ns = nc*w.subject.share(), ns*w.subject.share()
	w.nc, w.ns = w.nc+nc, w.ns+ns
	w.xc += w.subject.draw(rng, nc)
	w.xs += w.subject.draw(rng, ns)
}

// draw is what n requests add: bad events, or for means and quantiles the noise of the sum. With φ it clumps.
func (s subject) draw(rng *rand.Rand, n float64) float64 {
	if n <= 0 {
		return 0
	}
	switch s.Kind {
	case analysis.Mean:
		return n*s.Value + math.Sqrt(n*s.phi)*s.Value*s.Spread*rng.NormFloat64()
	case analysis.Quantile: // of the logarithm of the quantile
		sd := s.Spread * math.Sqrt(s.Quantile*(1-s.Quantile)) / distuv.UnitNormal.Prob(distuv.UnitNormal.Quantile(s.Quantile))
		return math.Sqrt(n*s.phi) * sd * rng.NormFloat64()
	}
	bad := s.Value
	if s.Better == analysis.Higher {
		bad = 1 - bad
	}
	mean := n * bad
	if bad > 0.2 && mean > 20 && s.Kind == analysis.Ratio { // where an event is no rarity, fewer vary than of Poisson
		return max(0, mean+math.Sqrt(mean*(1-bad)*s.phi)*rng.NormFloat64())
	}
	if mean <= 0 {
		return 0
	}
	return s.phi * distuv.Poisson{Lambda: mean / s.phi, Src: rng}.Rand()
}

// isBeyond reports whether the estimates are beyond a limit.
func (w *walker) isBeyond(c probe) bool {
	s, n := c.subject, c.limit
	if w.nc <= 0 || (n.B != 0 && w.ns <= 0) {
		return false
	}
	canary, stable := w.xc/w.nc, 0.0
	if w.ns > 0 {
		stable = w.xs / w.ns
	}
	switch {
	case s.Kind == analysis.Mean && n.AtLeast:
		return canary < n.A+n.B*stable
	case s.Kind == analysis.Mean:
		return canary > n.A+n.B*stable
	case s.Kind == analysis.Quantile:
		at := math.Log(n.Scale)
		if n.Scale == 0 {
			at, stable = math.Log(n.Threshold/s.Value), 0
		}
		if n.Failures {
			return canary-stable < at
		}
		return canary-stable > at
	}
	if n.Failures != (s.Better == analysis.Higher) { // the limit is on the other side of the ratio
		canary, stable = 1-canary, 1-stable
	}
	return canary > n.A+n.B*stable
}
