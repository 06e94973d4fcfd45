package plan

import (
	"fmt"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// planner makes one Plan.
type planner struct {
	Rollout
	rps      float64
	subjects map[string]subject
	probes   []probe
	legs     []leg // as far as they are known
	settle   float64
	out      *Plan
}

// probe is a check with a sequential test.
type probe struct {
	analysis.Tested
	subject subject
	limit   analysis.Null
	known   bool // stable's value is known where it matters
}

// leg is a stage as it is played, in seconds.
type leg struct {
	index int
	ratio float64 // stable requests per canary request
	rate  float64 // canary requests a second
	lasts float64
}

// What the engine loses to the bound, in nats, as measured on simulated rollouts (TestForetellsDetection, TestForetellsProof): wealth is spread
// over bets and moments, and the last event jumps beyond what is needed. Bets on rates that lie further beyond the limit hold less of the wealth.
const (
	rateLoss    = 1.0
	boldLoss    = 1.5 // per unit of the logarithm of how far beyond
	meanLoss    = 0.8
	proofLoss   = 0.4 // of rates
	meanProof   = 1.2
	lateLoss    = 3.0 // for what sets in later: ln(0.8/0.04), of the shares of wealth that begin at the start and at a weight change
	warmMean    = 100 // of stable's observations before the first bet on a mean
	warmEvents  = 10  // of those beyond a quantile
	chanceAsked = 0.8 // of catching what a rollout is to catch
)

func newPlanner(r Rollout, t Traffic) (*planner, error) {
	if err := r.validate(t); err != nil {
		return nil, err
	}
	p := &planner{Rollout: r, rps: t.RPS, subjects: map[string]subject{}, out: &Plan{RPS: t.RPS, Floor: r.Config.Floor}}
	if err := p.ask(t.Metrics); err != nil {
		return nil, err
	}
	tested, err := r.Config.Tested()
	if err != nil {
		return nil, err
	}
	for _, c := range tested {
		limit, _, _ := r.Config.Null(c.Check, c.Metric)
		s := p.subjects[c.Metric.Name]
		known := !math.IsNaN(s.Value)
		if !known && c.Check.Change != "" && (s.Kind == analysis.Mean || s.Kind == analysis.Quantile) {
			s.Value, known = 1, true // whatever it is
		}
		p.probes = append(p.probes, probe{Tested: c, subject: s, limit: limit, known: known})
	}
	p.settle = p.settles()
	p.tellBases()
	return p, nil
}

// ask takes what is said of the metrics, and assumes the rest.
func (p *planner) ask(said map[string]Base) error {
	for _, m := range p.Config.Metrics {
		if m.Kind == analysis.Value || m.Name == analysis.TotalRequests {
			continue
		}
		base, given := said[m.Name]
		if !given {
			base = DefaultBase(m)
		}
		if err := base.Validate(m); err != nil {
			return err
		}
		p.subjects[m.Name] = subject{Metric: m, Base: base, phi: max(1, p.Config.Overdispersion[m.Name])}
	}
	return nil
}

// tellBases says what was taken for granted. Nothing is assumed of events that are only counted: rules say what they would take.
func (p *planner) tellBases() {
	for _, m := range p.Config.Metrics {
		s, ok := p.subjects[m.Name]
		if !ok {
			continue
		}
		out := Metric{Name: m.Name, Value: some(s.Value), Spread: s.Spread, Share: s.share(), Phi: s.phi, Assumed: s.Assumed}
		tested := slices.ContainsFunc(p.probes, func(c probe) bool { return c.Metric.Name == m.Name })
		if m.Kind == analysis.Count && s.Assumed && !tested {
			out.Value, out.Assumed = nil, false
		}
		p.out.Metrics = append(p.out.Metrics, out)
	}
}

// mostSettle is the longest that a canary settles by itself.
const mostSettle = 10 * time.Minute

// settles is for how long nothing is compared after a weight change, in seconds: at least the poll of the change.
func (p *planner) settles() float64 {
	if p.Settle != nil {
		if *p.Settle == 0 {
			return 0
		}
		return p.Settle.Seconds() + p.Interval.Seconds()
	}
	longest := 0.0
	for _, s := range p.subjects {
		if s.Kind == analysis.Quantile && s.Better == analysis.Lower && !math.IsNaN(s.Value) {
			z := distuv.UnitNormal.Quantile(0.99) - distuv.UnitNormal.Quantile(s.Quantile)
			longest = max(longest, s.Value*math.Exp(z*s.Spread))
		}
	}
	return min(longest, mostSettle.Seconds()) + p.Interval.Seconds()
}

// begin is a stage at the traffic.
func (p *planner) begin(i int) leg {
	w := float64(p.Stages[i].Weight)
	return leg{index: i, ratio: (whole - w) / w, rate: p.rps * w / whole, lasts: p.Stages[i].Duration.Seconds()}
}

// compared are the canary requests of a leg that are compared, after so many seconds.
func (p *planner) compared(l leg, after float64) float64 { return l.rate * max(0, after-p.settle) }

// inForce are the probes of a stage and of its end, each limit once.
func (p *planner) inForce(stage int) []probe {
	var out []probe
	for _, c := range p.probes {
		if !c.known || (c.Stage != analysis.EveryStage && c.Stage != stage) {
			continue
		}
		same := func(o probe) bool { return o.group() == c.group() && o.limit == c.limit }
		if !slices.ContainsFunc(out, same) {
			out = append(out, c)
		}
	}
	return out
}

// group tells apart what shares a part of alpha: limits on a change and on the canary's own value, from above and from below.
func (c probe) group() string {
	return fmt.Sprintf("%s|%t|%t", c.Metric.Name, c.Check.Change != "", c.Check.Caps(c.Metric))
}

// tighter reports whether a probe of the same group allows less than another.
func (c probe) tighter(than probe) bool { return c.allows() < than.allows() }

// allows is how much a limit lets pass, in terms that order the limits of a group.
func (c probe) allows() float64 {
	s, n := c.subject, c.limit
	switch {
	case s.Kind == analysis.Mean && n.AtLeast:
		return -(n.A + n.B*s.Value)
	case s.Kind == analysis.Mean:
		return n.A + n.B*s.Value
	case s.Kind == analysis.Quantile && n.Failures:
		return -(n.Scale + n.Threshold)
	case s.Kind == analysis.Quantile:
		return n.Scale + n.Threshold
	}
	_, ps := s.rates(n, 1)
	return n.A + n.B*ps
}

// watches are the probes of a stage that nothing tighter stands beside: those that catch a regression first. A promotion check stands apart, since it
// waits for the end.
func (p *planner) watches(stage int) []probe {
	all := p.inForce(stage)
	return slices.DeleteFunc(slices.Clone(all), func(c probe) bool {
		return slices.ContainsFunc(all, func(o probe) bool {
			waits := o.Role == analysis.RolePromotion && c.Role != analysis.RolePromotion
			return o.group() == c.group() && o.tighter(c) && !waits
		})
	})
}

// grown is how the evidence on a kind of metric has grown over legs from the start, each of a pace per canary request.
func (p *planner) grown(k analysis.Kind, legs []leg, of func(ratio float64) pace) pace {
	var sum pace
	began := 0.0
	for _, l := range legs {
		sum = sum.plus(of(l.ratio).over(p.doubt(k, began+l.lasts/2)).times(p.compared(l, l.lasts)))
		began += l.lasts
	}
	return sum
}

// began is how long the legs before a stage last.
func (p *planner) began(stage int) float64 {
	t := 0.0
	for _, l := range p.legs[:min(stage, len(p.legs))] {
		t += l.lasts
	}
	return t
}

const (
	varQuantile = 1.28 // as the engine's
	leastTerms  = 4    // polls before its first bet on a mean
)

// doubt is how many times the variance of a mean is that the engine reckons with after so many seconds of polls: it takes the upper end of an interval
// (Wilson & Hilferty, "The distribution of chi-square", 1931). It is 1 for what is no mean.
func (p *planner) doubt(k analysis.Kind, seconds float64) float64 {
	if k != analysis.Mean {
		return 1
	}
	third := 2 / (9 * max(leastTerms, seconds/p.Interval.Seconds()))
	x := 1 - third - varQuantile*math.Sqrt(third)
	return 1 / (x * x * x)
}

// proofLevel is the evidence that proof takes, with what the engine loses.
func (p *planner) proofLevel(k analysis.Kind) float64 {
	if k == analysis.Mean {
		return math.Log(1/p.Config.Beta) + meanProof
	}
	return math.Log(1/p.Config.Beta) + proofLoss
}

// level is the evidence that a rollback takes, with what the engine loses where the canary's rate is so many times beyond the limit.
func (p *planner) level(c probe, beyond float64) float64 {
	needed := math.Log(1 / (p.Config.Alpha * c.Share))
	if c.Metric.Kind == analysis.Mean {
		return needed + meanLoss
	}
	return needed + rateLoss + boldLoss*math.Log(beyond)
}

// warmUp is how long it takes from the start until the first bet, in seconds, while too little is known of stable.
func (p *planner) warmUp(c probe, l leg) float64 {
	observations, polls := 0.0, 0.0
	switch {
	case c.Metric.Kind == analysis.Quantile && c.limit.Scale > 0:
		observations = max(warmMean, warmEvents/min(c.Metric.Quantile, 1-c.Metric.Quantile))
	case c.Metric.Kind == analysis.Mean:
		observations, polls = warmMean, leastTerms
	}
	if observations == 0 || l.ratio <= 0 {
		return 0
	}
	return max(polls*p.Interval.Seconds(), observations/l.ratio/c.subject.share()/l.rate)
}
