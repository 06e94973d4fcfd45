package trials

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// errorsOnly is the default world at a rate with one metric. The limits on the others stay, with their shares of alpha.
func errorsOnly(rps float64) world.World { return only(at(rps), "error_rate") }

// estimating asks for all limits over a week, with estimates enough to advance.
func estimating() analysis.Config { return config(limits(), analysis.AdvanceEstimate, weekPolls) }

// withDispersion is a Config that knows how much the counts of errors vary.
func withDispersion(cfg analysis.Config, phi float64) analysis.Config {
	cfg.Overdispersion = map[string]float64{"error_rate": phi}
	return cfg
}

// runRamp simulates days at 100 rps in which the weight rises and, at noon, an incident doubles the errors of both versions. There is no
// difference between them. The times are those of rollbacks by each rule's name.
func runRamp(o Options) map[string][]time.Duration {
	w := errorsOnly(100)
	w.Diurnal = 0
	w.Incidents = []world.Incident{{Arm: world.Both, Metric: "error_rate", Factor: 2, From: day / 2, To: day}}
	stages := []stage{{500, day / 4}, {2500, day / 4}, {5000, day / 2}}
	out := map[string][]time.Duration{}
	names := []string{"raw ratio, pooled, at the end of the day", "pooled z-test at each poll (z > 4)", own}
	for _, name := range names {
		out[name] = make([]time.Duration, o.Runs)
	}
	o.each("ramp", o.Runs, func(i int, rng *rand.Rand) {
		ls := limits()
		cfg := config(ls, analysis.AdvanceEstimate, int(day/step))
		cfg.Stages = len(stages)
		rules := []Rule{&atEnd{newWindow(ls[:1]), day}, &pooledZ{newWindow(ls[:1]), 4}, newEngine(cfg)}
		for k, result := range watch(&w, stages, 0, rng, rules...) {
			out[names[k]][i] = result.at
		}
	})
	return out
}

func tablesOfRamp(o Options) []Table {
	t := Table{
		Title: "No difference, but a ramp (5 → 25 → 50 %) and then an incident that doubles the errors of both (100 rps, a day)",
		Head:  []string{"rule", "rolled back"},
	}
	all := runRamp(o)
	for _, name := range []string{"raw ratio, pooled, at the end of the day", "pooled z-test at each poll (z > 4)", own} {
		t.Rows = append(t.Rows, []string{name, share(within(all[name], day), o.Runs)})
	}
	return []Table{t}
}

// The bursts that are tried: retries of five on average, which makes the variance of counts nine times as large.
const burst = 5

// runBursts simulates rollouts at 10 rps whose errors come in bursts, with errors so many times stable's. phi says which overdispersion is set from
// the history of the agent, two weeks without a canary.
func runBursts(o Options, times float64, phi func(w world.World, rng *rand.Rand) float64) ([]found, float64) {
	w := errorsOnly(10)
	w.Diurnal = 0
	w.Metrics[0].Burst = burst
	history := w
	w.Regressions = []world.Regression{{Metric: "error_rate", Factor: times}}
	phis := make(chan float64, o.Runs)
	all := o.try(fmt.Sprintf("bursts %g", times), o.Runs, func(rng *rand.Rand) trial {
		set := phi(history, rng)
		phis <- set
		return trial{world: w, config: withDispersion(estimating(), set), stages: aWeek()}
	})
	close(phis)
	sum := 0.0
	for x := range phis {
		sum += x
	}
	return all, sum / float64(len(all))
}

// independent sets no overdispersion.
func independent(world.World, *rand.Rand) float64 { return 1 }

// estimated is the overdispersion of errors in two weeks of history, split in two as a canary of 5 % would: the mean of (x−θn)²/(nθ(1−θ)) over
// blocks of an hour, with x of n events on the smaller side and θ its share of the traffic, and an upper confidence bound of it.
func estimated(w world.World, rng *rand.Rand) float64 {
	const block = int(hour / step)
	sum, blocks := 0.0, 0.0
	var stable, canary analysis.Counts
	stream := w.Stream(rng)
	for i := range 2 * weekPolls {
		from := time.Duration(i) * step
		s := stream.Poll(int64(i), from, from+step, small).Samples["error_rate"]
		accumulate(&stable, s.Stable)
		accumulate(&canary, s.Canary)
		if (i+1)%block != 0 {
			continue
		}
		share, n := canary.N/(canary.N+stable.N), canary.X+stable.X
		if n > 0 {
			off := canary.X - n*share
			sum += off * off / (n * share * (1 - share))
			blocks++
		}
		stable, canary = analysis.Counts{}, analysis.Counts{}
	}
	return max(1, sum/blocks*(1+distuv.UnitNormal.Quantile(0.95)*math.Sqrt(2/blocks)))
}

func tablesOfBursts(o Options) []Table {
	t := Table{
		Title: "Errors in geometric bursts of five on average (10 rps, 5 %, a week)",
		Head:  []string{"errors", "overdispersion φ", "rolled back", "median"},
	}
	for _, times := range []float64{1.1, 2} {
		for _, phi := range []struct {
			name string
			of   func(world.World, *rand.Rand) float64
		}{{"1 (not told)", independent}, {"from two weeks of history", estimated}} {
			all, mean := runBursts(o, times, phi.of)
			name := phi.name
			if mean > 1 {
				name += ": " + number(mean) + " on average"
			}
			what := "× " + number(times)
			if times == 1.1 {
				what += " (at the limit)"
			}
			back := rolledBack(all)
			t.Rows = append(t.Rows, []string{what, name, share(within(back, week), len(back)), span(quantileOf(back, 0.5))})
		}
	}
	return []Table{t}
}

// runHeavyTail simulates weeks with a cost per task that is lognormal with sigma 1.5, so many times stable's.
func runHeavyTail(o Options, rps, times float64) []found {
	w := only(at(rps), "cost_per_task")
	w.Diurnal = 0
	m := &w.Metrics[0]
	const sigma = 1.5
	m.Shape, m.Spread = world.Lognormal, math.Sqrt(math.Expm1(sigma*sigma))
	w.Regressions = []world.Regression{{Metric: m.Name, Factor: times}}
	return o.try(fmt.Sprintf("heavy tail %g %g", rps, times), o.Runs, func(*rand.Rand) trial {
		return trial{world: w, config: estimating(), stages: aWeek()}
	})
}

func tablesOfHeavyTail(o Options) []Table {
	t := Table{
		Title: "Cost with a heavy tail (lognormal, σ = 1.5, a week)",
		Head:  []string{"cost", "rate", "rolled back", "median"},
	}
	for _, times := range []float64{1.1, 1.5, 2} {
		for _, rps := range rates[:2] {
			back := rolledBack(runHeavyTail(o, rps, times))
			what := "× " + number(times)
			if times == 1.1 {
				what += " (at the limit)"
			}
			t.Rows = append(t.Rows, []string{what, rate(rps), share(within(back, week), len(back)), span(quantileOf(back, 0.5))})
		}
	}
	return []Table{t}
}

// runBuckets simulates weeks at 10 rps with the p95 alone, so many times stable's, measured with the bounds given.
func runBuckets(o Options, bounds []float64, times float64) []found {
	w := only(at(10), "p95_latency")
	w.Diurnal = 0
	w.Metrics[0].Bounds = bounds
	w.Regressions = []world.Regression{{Metric: "p95_latency", Factor: times}}
	cfg := config(limits(), analysis.AdvanceProof, weekPolls)
	return o.try(fmt.Sprintf("buckets %d %g", len(bounds), times), o.Runs, func(*rand.Rand) trial {
		return trial{world: w, config: cfg, stages: aWeek()}
	})
}

func tablesOfBuckets(o Options) []Table {
	t := Table{
		Title: "The p95 from coarse and fine buckets (limit +30 %, 10 rps, 5 %, a week)",
		Head:  []string{"p95", "buckets", "rolled back", "median", "called within the limit", "median"},
		Notes: []string{"Exactly at the limit, calling it within is wrong; beta allows 5 %."},
	}
	for _, times := range []float64{1, 1.3, 1.5, 2} {
		for _, buckets := range []struct {
			name   string
			bounds []float64
		}{{"25 to 100 % wide", world.CoarseBounds()}, {"9 % wide", world.FineBounds()}} {
			all := runBuckets(o, buckets.bounds, times)
			back := rolledBack(all)
			met := make([]time.Duration, len(all))
			for i, f := range all {
				met[i] = f.metAt("p95_latency")
			}
			t.Rows = append(t.Rows, []string{
				"× " + number(times), buckets.name, share(within(back, week), len(back)), span(quantileOf(back, 0.5)),
				share(within(met, week), len(met)), span(quantileOf(met, 0.5)),
			})
		}
	}
	return []Table{t}
}
