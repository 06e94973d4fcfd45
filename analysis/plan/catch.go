package plan

import (
	"math"
	"slices"

	"github.com/aviary-rollouts/aviary/analysis"
)

// mostFactor is the largest regression that is looked at.
const mostFactor = 1000

// catches foretells, by metric and kind of limit, what the rollout catches of a regression that is there from its start.
func (p *planner) catches() {
	var groups []string
	for _, c := range p.probes {
		if !c.known || slices.Contains(groups, c.group()) {
			continue
		}
		groups = append(groups, c.group())
		out := Catch{Metric: c.Metric.Name, Relative: c.Check.Change != ""}
		for _, factor := range Factors {
			out.Speeds = append(out.Speeds, p.caught(c.group(), factor))
		}
		out.Limit = some(leastFactor(func(f float64) bool { return p.isBeyond(c.group(), f) }))
		out.Smallest = some(leastFactor(func(f float64) bool { return p.caught(c.group(), f).Chance >= chanceAsked }))
		p.out.Catches = append(p.out.Catches, out)
	}
}

// leastFactor is the smallest factor from 1 on that does, NaN if none does.
func leastFactor(does func(float64) bool) float64 {
	if !does(mostFactor) {
		return math.NaN()
	}
	low, high := 0.0, math.Log(mostFactor)
	for range 40 {
		if mid := (low + high) / 2; does(math.Exp(mid)) {
			high = mid
		} else {
			low = mid
		}
	}
	return math.Exp(high)
}

// ofGroup are the probes of a group that are asked in a stage, or at its end.
func (p *planner) ofGroup(group string, stage int) []probe {
	return slices.DeleteFunc(p.inForce(stage), func(c probe) bool { return c.group() != group })
}

// isBeyond reports whether a factor is beyond a limit of a group in any stage, however little there is to see of it.
func (p *planner) isBeyond(group string, factor float64) bool {
	for i := range p.Stages {
		for _, c := range p.ofGroup(group, i) {
			if a, _ := c.subject.against(c.limit, factor, 1); a.mean > 0 {
				return true
			}
		}
	}
	return false
}

// caught is how soon and how likely the rollout catches a regression that is there from the start.
func (p *planner) caught(group string, factor float64) Speed {
	out := Speed{Factor: factor}
	if !p.isBeyond(group, factor) {
		out.Allowed = true
		return out
	}
	began, requests, seen := 0.0, 0.0, false
	legs := p.legsOf(group, factor)
	for i, l := range legs {
		for _, c := range p.ofGroup(group, i) {
			seen = seen || c.limit.B == 0 || l.ratio > 0
			after := func(t float64) float64 { return p.caughtBy(c, factor, legs[:i+1], t) }
			chance, from := after(l.lasts), 0.0
			if c.Role == analysis.RolePromotion {
				from = l.lasts
			}
			out.Chance = max(out.Chance, chance)
			if chance < 0.5 {
				continue
			}
			t := max(from, firstTime(after, l.lasts))
			if out.Median == nil || began+t < *out.Median {
				out.Median, out.Requests = some(began+t), some(requests+l.rate*t)
			}
		}
		began, requests = began+l.lasts, requests+l.rate*l.lasts
		if out.Median != nil && out.Chance > 0.9999 {
			break
		}
	}
	out.Blind = !seen
	return out
}

// legsOf are the stages that a canary with a regression of a group goes through: one whose estimate is more likely than not beyond a limit at the end of a stage
// is held there, at that stage's weight, as long as it may be.
func (p *planner) legsOf(group string, factor float64) []leg {
	var out []leg
	for i, l := range p.legs {
		n, stable := p.compared(l, l.lasts), p.stableOf(l)
		held := p.Config.Method == analysis.Sequential && slices.ContainsFunc(p.ofGroup(group, i), func(c probe) bool {
			return c.exceeds(n*c.subject.share(), stable*c.subject.share(), factor) > 0.5
		})
		if held {
			l.lasts = max(l.lasts, (p.Stages[i].Duration + p.Stages[i].MaxHold).Seconds())
			return append(out, l)
		}
		out = append(out, l)
	}
	return out
}

// caughtBy is the chance that a check has caught a regression so many seconds after the last of the legs began.
func (p *planner) caughtBy(c probe, factor float64, legs []leg, t float64) float64 {
	var sum pace
	level, warm, began := 0.0, p.warmUp(c, p.legs[0])*p.legs[0].rate, 0.0
	for i, l := range legs {
		lasts := l.lasts
		if i == len(legs)-1 {
			lasts = t
		}
		n := p.compared(l, lasts-p.Interval.Seconds())
		used := min(n, warm)
		warm -= used
		a, beyond := c.subject.against(c.limit, factor, l.ratio)
		sum = sum.plus(a.over(p.doubt(c.Metric.Kind, began+lasts/2)).times(n - used))
		began += lasts
		if a.mean > 0 {
			level = max(level, p.level(c, beyond))
		}
	}
	if sum.mean <= 0 {
		return 0
	}
	return reached(sum, level)
}

// firstTime is when a rising chance is one half, at most last.
func firstTime(chance func(t float64) float64, last float64) float64 {
	low, high := 0.0, last
	for range 50 {
		if mid := (low + high) / 2; chance(mid) < 0.5 {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}
