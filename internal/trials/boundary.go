package trials

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/aviary-rollouts/aviary/analysis"
)

// runBoundary simulates weeks at 5 % with all five metrics exactly at their limits.
func runBoundary(o Options, rps float64) []found {
	ls := limits()
	w := atLimits(at(rps), ls)
	return o.try(fmt.Sprintf("boundary %g", rps), o.Weeks, func(*rand.Rand) trial {
		return trial{world: w, config: config(ls, analysis.AdvanceProof, weekPolls), stages: aWeek()}
	})
}

func tablesOfBoundary(o Options) []Table {
	t := Table{
		Title: "All five metrics exactly at their limits",
		Head:  []string{"rate", "weeks", "rolled back", "at most (95 %)", "called healthy"},
	}
	for _, l := range limits() {
		t.Head = append(t.Head, l.metric+" called within")
	}
	weeks, rolled := 0, 0
	for _, rps := range rates {
		all := runBoundary(o, rps)
		n, k := len(all), within(rolledBack(all), week)
		weeks, rolled = weeks+n, rolled+k
		row := []string{rate(rps), number(float64(n)), share(k, n), number(mostLikely(k, n)), share(count(all, func(f found) bool { return f.healthy != never }), n)}
		for _, l := range limits() {
			row = append(row, share(count(all, func(f found) bool { return f.metAt(l.metric) != never }), n))
		}
		t.Rows = append(t.Rows, row)
	}
	t.Notes = []string{fmt.Sprintf("%d of %d weeks were rolled back: a chance of at most %s %% at 95 %% confidence; the limit is alpha, 1 %%. A metric may be called within its limit with a chance of beta, 5 %%, and the canary is healthy only if all are.",
		rolled, weeks, number(100*mostLikely(rolled, weeks)))}
	return []Table{t}
}

// tightening are the limits of a rollout's stages as shares of those of the first: 10, 5 and 3 % more errors.
var tightening = []float64{1, 0.5, 0.3}

// tighteningStages are a week's stages with a ramp, of which the last two have the tightest limits.
var tighteningStages = []stage{{100, 12 * hour}, {500, 36 * hour}, {1000, day}, {2500, day}, {5000, 36 * hour}, {7500, 36 * hour}}

// tighteningOf says which of the limits a stage has.
var tighteningOf = []int{0, 0, 1, 1, 2, 2}

// tighteningConfig asks for the first limits in all stages, as rollback criteria, and for tighter ones later.
func tighteningConfig() analysis.Config {
	cfg := config(nil, analysis.AdvanceEstimate, weekPolls)
	for _, l := range limits() {
		m, _ := analysis.Preset(l.metric)
		cfg.Metrics = append(cfg.Metrics, m)
		cfg.Checks = append(cfg.Checks, l.parsed(analysis.RoleGuard, analysis.EveryStage))
	}
	for i := range tighteningStages {
		for _, l := range limitsOf(tightening[tighteningOf[i]]) {
			cfg.Checks = append(cfg.Checks, l.parsed(analysis.RoleStage, i))
		}
	}
	cfg.Stages = len(tighteningStages)
	return cfg
}

// runTightening simulates whole rollouts whose limits tighten while the weight rises, with the truth at the tightest limits all the time.
func runTightening(o Options, rps float64) []found {
	tightest := limitsOf(tightening[len(tightening)-1])
	w := atLimits(at(rps), tightest)
	return o.try(fmt.Sprintf("tightening %g", rps), o.Weeks, func(*rand.Rand) trial {
		return trial{world: w, config: tighteningConfig(), stages: tighteningStages}
	})
}

func tablesOfTightening(o Options) []Table {
	t := Table{
		Title: "A whole rollout whose limits tighten (10 % → 5 % → 3 % more errors, the others alike) while the weight rises from 1 to 75 %, truth exactly at the tightest",
		Head:  []string{"rate", "rollouts", "rolled back", "at most (95 %)", "blamed"},
	}
	o.Weeks = (o.Weeks + 1) / 2 // each has three times as many tests
	for _, rps := range rates {
		all := runTightening(o, rps)
		n, k := len(all), within(rolledBack(all), week)
		t.Rows = append(t.Rows, []string{rate(rps), number(float64(n)), share(k, n), number(mostLikely(k, n)), blamed(all)})
	}
	return []Table{t}
}

// blamed lists the checks that brought rollbacks.
func blamed(all []found) string {
	var out []string
	for _, f := range all {
		if f.blame != "" {
			out = append(out, fmt.Sprintf("%s after %s", f.blame, span(f.at)))
		}
	}
	if len(out) == 0 {
		return none
	}
	return strings.Join(out, "; ")
}
