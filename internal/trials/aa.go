package trials

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// rates are those of traffic, in requests a second of both versions together: from an internal tool to a busy service.
var rates = []float64{1, 10, 100}

// own is what the product's rule is called in tables.
const own = "**Aviary**"

// identical is what rules did in weeks with two identical versions.
type identical struct {
	rps   float64
	weeks int
	rules []named
	fired [][]time.Duration // by rule and week; the last rule is Aviary's

	found []found // by week, Aviary's with advance: proof
}

// runIdentical simulates weeks at 5 % with two identical versions, a daily swing and five metrics.
func runIdentical(o Options, rps float64) identical {
	ls := limits()
	r := identical{rps: rps, weeks: o.Weeks, rules: append(peers(ls), named{name: own}), found: make([]found, o.Weeks)}
	r.fired = make([][]time.Duration, len(r.rules))
	for k := range r.fired {
		r.fired[k] = make([]time.Duration, o.Weeks)
	}
	o.each(fmt.Sprintf("identical %g", rps), o.Weeks, func(i int, rng *rand.Rand) {
		w := at(rps)
		var rules []Rule
		for _, p := range peers(ls) {
			rules = append(rules, p.rule)
		}
		e := newEngine(config(ls, analysis.AdvanceProof, weekPolls))
		for k, out := range watch(&w, aWeek(), 0, rng, append(rules, e)...) {
			r.fired[k][i] = out.at
		}
		r.found[i] = e.found
	})
	return r
}

// times are those of something that was found, by week.
func (r identical) times(of func(found) time.Duration) []time.Duration {
	out := make([]time.Duration, len(r.found))
	for i, f := range r.found {
		out[i] = of(f)
	}
	return out
}

// falseRollbacks is how many weeks Aviary's rule took back the canary.
func (r identical) falseRollbacks() int { return within(r.fired[len(r.fired)-1], week) }

func tablesOfIdentical(o Options) []Table {
	var all []identical
	for _, rps := range rates {
		all = append(all, runIdentical(o, rps))
	}
	return []Table{falseRollbackTable(all), healthyTable(all)}
}

func falseRollbackTable(all []identical) Table {
	t := Table{
		Title: "Two identical versions: false rollbacks",
		Head:  []string{"rule: share of weeks rolled back by 1 h / 24 h / 7 d"},
	}
	weeks, mine, mismatches := 0, 0, 0
	for _, r := range all {
		t.Head = append(t.Head, rate(r.rps))
		weeks, mine, mismatches = weeks+r.weeks, mine+r.falseRollbacks(), mismatches+count(r.found, func(f found) bool { return f.mismatch != never })
	}
	shown := map[string]bool{}
	for _, rule := range all[0].rules {
		if shown[rule.name] {
			continue
		}
		shown[rule.name] = true
		row := []string{rule.name}
		for _, r := range all {
			row = append(row, r.cell(rule.name))
		}
		t.Rows = append(t.Rows, row)
	}
	t.Notes = []string{fmt.Sprintf(
		"%d weeks a rate, polls every 15 s, 5 %% canary, traffic and rates with a daily swing, five metrics with limits. Aviary: %d of %d weeks, so a chance of at most %s %% a week at 95 %% confidence. The share of traffic was called wrong in %d weeks.",
		all[0].weeks, mine, weeks, number(100*mostLikely(mine, weeks)), mismatches)}
	return t
}

// cell is the share of weeks by each horizon of all rules of a name, of which one may be for each horizon.
func (r identical) cell(name string) string {
	out := ""
	for _, h := range horizons {
		cell := none
		for k, rule := range r.rules {
			if rule.name == name && (rule.from == 0 || rule.from == h) && (rule.to == 0 || h <= rule.to) {
				cell = share(within(r.fired[k], h), r.weeks)
			}
		}
		if out != "" {
			out += " / "
		}
		out += cell
	}
	return out
}

func healthyTable(all []identical) Table {
	t := Table{
		Title: "Two identical versions: how soon the canary is shown to be healthy (`advance: proof`)",
		Head:  []string{"rate", "by 24 h", "by 7 d", "median"},
		Notes: []string{"All five metrics have to be shown to be within their limits. The columns to the right are the medians of each by itself."},
	}
	for _, l := range limits() {
		t.Head = append(t.Head, l.metric)
	}
	for _, r := range all {
		healthy := r.times(func(f found) time.Duration { return f.healthy })
		row := []string{rate(r.rps), share(within(healthy, day), r.weeks), share(within(healthy, week), r.weeks), span(quantileOf(healthy, 0.5))}
		for _, l := range limits() {
			row = append(row, span(quantileOf(r.times(func(f found) time.Duration { return f.metAt(l.metric) }), 0.5)))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}
