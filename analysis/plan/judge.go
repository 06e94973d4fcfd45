package plan

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// Criticality says what is expected of a rollout's durations.
type Criticality string

// The criticalities.
const (
	Standard       Criticality = "standard"        // nothing
	Conversational Criticality = "conversational"  // at least 4 to 6 hours at low traffic and 24 hours at medium traffic
	SafetyCritical Criticality = "safety-critical" // a full week in all
)

// MediumWeight is the canary's share from which its traffic is medium, in basis points; below it is low. Stages that only a few users should
// notice lie below, those that show what most users would get above.
const MediumWeight = 2000

// What is expected of durations.
const (
	lowLeast    = 4 * time.Hour
	lowWanted   = 6 * time.Hour
	mediumLeast = 24 * time.Hour
	week        = 7 * 24 * time.Hour
)

// What a rollout is to catch: failures twice as many, or half again as many as the limits allow.
const (
	sureFactor  = 2.0
	sureBeyond  = 1.5
	heldOften   = 0.2
	rawTooOften = 0.05
)

func (p *planner) undecided(format string, args ...any) {
	p.out.Undecided = append(p.out.Undecided, fmt.Sprintf(format, args...))
}

func (p *planner) warn(format string, args ...any) {
	p.out.Warnings = append(p.out.Warnings, fmt.Sprintf(format, args...))
}

// cannotPass notes a stage that takes longer than it may.
func (p *planner) cannotPass(s Stage, because string, takes float64) {
	most := s.Duration + s.MaxHold
	if math.IsInf(takes, 1) {
		p.undecided("stage %s is not passed: at its weight, traffic says nothing on %s", s.Name, because)
		return
	}
	p.undecided("stage %s would take %s for %s, and may take %s", s.Name, Say(takes), because, Say(most.Seconds()))
}

// judge says whether the rollout can decide, and what to know about it.
func (p *planner) judge() {
	if len(p.probes) > 0 {
		p.out.Alpha = p.Config.Alpha
	}
	for _, c := range p.out.Catches {
		if !p.fenced(c) {
			p.judgeCatch(c)
		}
	}
	switch {
	case p.out.Threshold != nil:
		if *p.out.Threshold > rawTooOften {
			p.undecided("the raw threshold rule takes identical versions back in %s of all rollouts: its verdicts say nothing", share(*p.out.Threshold))
		}
	case len(p.probes) == 0:
		p.undecided("no check compares the canary in a way that is tested, want at least one such as error_rate_increase < 0.10")
	}
	p.out.Decides = len(p.out.Undecided) == 0
	p.warnStable()
	p.warnUnknown()
	p.warnHeld()
	p.warnDurations()
}

// fenced reports whether another kind of limit on the same metric is broken sooner: that one is to catch what there is.
func (p *planner) fenced(c Catch) bool {
	return slices.ContainsFunc(p.out.Catches, func(o Catch) bool {
		return o.Metric == c.Metric && o.Limit != nil && (c.Limit == nil || *o.Limit < *c.Limit)
	})
}

// judgeCatch wants a regression of a size that matters to be caught with a good chance.
func (p *planner) judgeCatch(c Catch) {
	if s, ok := p.subjects[c.Metric]; ok && s.spotless() && c.Relative {
		// A factor says nothing about nothing; any more than the limit's slack is caught all the same.
		p.warn("%s: stable has no failures, so nothing can be said in factors of them; `starter simulate --regression` says what a canary with some comes to", c.Metric)
		return
	}
	if c.Limit == nil {
		p.undecided("%s: the limit can't be broken, however bad the canary is", c.Metric)
		return
	}
	wanted := max(sureFactor, sureBeyond**c.Limit)
	switch {
	case c.Smallest == nil:
		p.undecided("%s: nothing is caught in %s at %s requests/s", c.Metric, Say(p.out.Takes), short(p.rps))
	case *c.Smallest > wanted*(1+1e-9):
		p.undecided("%s: a regression has to be %s to be caught in %s, want %s or less", c.Metric, times(*c.Smallest), Say(p.out.Takes), times(wanted))
	}
	if *c.Limit > sureFactor {
		p.warn("%s: the limits allow up to %s as bad as stable; a tighter one would say more", c.Metric, times(*c.Limit))
	}
}

// spotless reports whether stable has nothing of what is bad about a rate.
func (s subject) spotless() bool {
	if s.Kind != analysis.Ratio && s.Kind != analysis.Count {
		return false
	}
	return s.Value == 0 && s.Better == analysis.Lower || s.Value == 1 && s.Better == analysis.Higher
}

// warnStable warns of limits that stable itself does not keep.
func (p *planner) warnStable() {
	for i := range p.Stages {
		for _, c := range p.inForce(i) {
			a, _ := c.subject.against(c.limit, 1, 1)
			if a.mean > 0 && (i == 0 || c.Stage == i) {
				p.warn("%s: stable itself is beyond it, so a canary like stable is taken back", c.Check.Text)
			}
		}
	}
}

// warnUnknown warns of what the plan knows nothing about.
func (p *planner) warnUnknown() {
	for _, c := range p.probes {
		if !c.known {
			p.warn("%s is not planned for: give stable's value as --base %s=NUMBER", c.Check.Text, c.Metric.Name)
		}
	}
	for _, m := range p.Config.Metrics {
		if m.Kind == analysis.Value {
			p.warn("%s is a plain value: by threshold only, no plan can be made for it", m.Name)
		}
	}
	for _, r := range p.out.Rules {
		if r.Chance != nil && *r.Chance > 0.05 {
			p.warn("%s: a canary like stable breaks it in %s of all rollouts; want a limit relative to stable, such as %s_increase < 0.5", r.Check, share(*r.Chance), r.Metric)
		}
	}
}

// warnHeld warns of stages that hold identical versions often.
func (p *planner) warnHeld() {
	if p.Config.Method != analysis.Sequential {
		return
	}
	for _, l := range p.out.Stages {
		if l.Held > heldOften {
			p.warn("stage %s holds %s of all canaries that are like stable, since an estimate is beyond its limit by chance: expect it to take longer", l.Name, share(l.Held))
		}
	}
}

// warnDurations says where durations don't fit the criticality.
func (p *planner) warnDurations() {
	switch p.Criticality {
	case Conversational:
		p.warnConversational()
	case SafetyCritical:
		if p.out.Planned < week.Seconds() {
			p.warn("safety-critical: the stages last %s in all, want a full week, with its weekend", Say(p.out.Planned))
		}
	}
}

// warnConversational wants time for conversations to end while few users have the canary, and a whole day, with its night, while many do. Stages
// that stand next to each other count together; a bake has nothing to compare with.
func (p *planner) warnConversational() {
	var low, medium time.Duration
	for _, s := range p.Stages {
		switch {
		case s.Weight < MediumWeight:
			low += s.Duration
		case s.Weight < whole:
			medium += s.Duration
		}
	}
	const most = 100.0 * MediumWeight / whole
	switch {
	case low < lowLeast:
		p.warn("conversational: %s at low traffic (stages below %g %%), want at least 4 to 6 h: conversations have to end before they count", Say(low.Seconds()), most)
	case low < lowWanted:
		p.warn("conversational: %s at low traffic (stages below %g %%) will do if conversations end within the hour; 6 h are safer", Say(low.Seconds()), most)
	}
	if medium < mediumLeast {
		p.warn("conversational: %s at medium traffic (stages from %g %%), want 24 h: every hour of the day once", Say(medium.Seconds()), most)
	}
}

// Say writes a time in seconds for people, with two parts at most: "3 h 10 min".
func Say(seconds float64) string {
	if math.IsNaN(seconds) || math.IsInf(seconds, 0) || seconds > 100*365*24*3600 {
		return "over 100 years"
	}
	units := []struct {
		name    string
		seconds float64
	}{{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}}
	for i, u := range units {
		if i == len(units)-1 {
			return strconv.FormatFloat(math.Round(seconds), 'f', 0, 64) + " s"
		}
		small := units[i+1]
		whole := math.Round(seconds/small.seconds) * small.seconds // rounded before it is split: no 60 min
		if whole < u.seconds {
			continue
		}
		out := strconv.FormatFloat(math.Floor(whole/u.seconds), 'f', 0, 64) + " " + u.name
		if rest := math.Mod(whole, u.seconds); rest > 0 {
			out += " " + strconv.FormatFloat(math.Round(rest/small.seconds), 'f', 0, 64) + " " + small.name
		}
		return out
	}
	return ""
}

func times(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) + "×" }

func short(x float64) string { return strconv.FormatFloat(x, 'g', 3, 64) }

func share(x float64) string {
	if x > 0 && x < 0.01 {
		return "under 1 %"
	}
	return strconv.FormatFloat(100*x, 'f', 0, 64) + " %"
}
