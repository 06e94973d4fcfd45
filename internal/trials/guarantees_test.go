package trials

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// few is enough for a test that runs each time. The tables are made with more.
func few(weeks, runs int) Options {
	return Options{Weeks: int(math.Ceil(part * float64(weeks))), Runs: int(math.Ceil(part * float64(runs))), Seed: 2026}
}

// mostByChance is the number of n that chance exceeds once in a thousand times where each has a chance of p.
func mostByChance(n int, p float64) int {
	b := distuv.Binomial{N: float64(n), P: p}
	k := 0
	for b.CDF(float64(k)) < 0.999 {
		k++
	}
	return k
}

// isTooOften reports whether k of n is more than a chance of p explains.
func isTooOften(k, n int, p float64) bool { return k > mostByChance(n, p) }

func TestMostByChance(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		n    int
		p    float64
		want int
	}{{100, 0.01, 5}, {1000, 0.01, 21}, {10, 0, 0}, {1, 1, 1}} {
		if got := mostByChance(tt.n, tt.p); got != tt.want {
			t.Errorf("%d of %g: %d, want %d", tt.n, tt.p, got, tt.want)
		}
	}
}

// Two identical versions with a daily swing: Aviary rolls back no more than alpha allows. The same count condemns the raw ratio.
func TestIdenticalVersions(t *testing.T) {
	t.Parallel()
	mine, raw, n := 0, 0, 0
	for _, rps := range rates {
		r := runIdentical(few(15, 0), rps)
		n += r.weeks
		mine += r.falseRollbacks()
		raw += within(r.fired[0], week)
		for k, rule := range r.rules {
			t.Logf("%g rps, %s: %d of %d", rps, rule.name, within(r.fired[k], week), r.weeks)
		}
		if k := count(r.found, func(f found) bool { return f.mismatch != never }); isTooOften(k, r.weeks, alpha) {
			t.Errorf("%g rps: the share of traffic was called wrong in %d of %d weeks", rps, k, r.weeks)
		}
	}
	if isTooOften(mine, n, alpha) {
		t.Errorf("%d of %d weeks were rolled back, at most %d are chance at alpha %g", mine, n, mostByChance(n, alpha), alpha)
	}
	if !isTooOften(raw, n, alpha) {
		t.Errorf("the raw ratio rolled back %d of %d weeks: what condemns no broken rule proves nothing", raw, n)
	}
}

// All five metrics exactly at their limits: still no more than alpha, and none is called healthy. A raw ratio fails again.
func TestExactlyAtTheLimits(t *testing.T) {
	t.Parallel()
	rolled, healthy, n := 0, 0, 0
	proven := map[string]int{}
	for _, rps := range rates[1:] {
		all := runBoundary(few(20, 0), rps)
		n += len(all)
		rolled += within(rolledBack(all), week)
		healthy += count(all, func(f found) bool { return f.healthy != never })
		for _, l := range limits() {
			proven[l.metric] += count(all, func(f found) bool { return f.metAt(l.metric) != never })
		}
	}
	t.Logf("%d of %d weeks rolled back, %d called healthy, called within the limit: %v", rolled, n, healthy, proven)
	if isTooOften(rolled, n, alpha) {
		t.Errorf("%d of %d weeks were rolled back, at most %d are chance at alpha %g", rolled, n, mostByChance(n, alpha), alpha)
	}
	for metric, k := range proven {
		if isTooOften(k, n, beta) {
			t.Errorf("%s was called within its limit in %d of %d weeks, at most %d are chance at beta %g", metric, k, n, mostByChance(n, beta), beta)
		}
	}
	if isTooOften(healthy, n, beta) {
		t.Errorf("%d of %d weeks were called healthy", healthy, n)
	}
	w := atLimits(at(10), limits())
	raw := make([]time.Duration, 20)
	few(0, 0).each("raw at the limits", len(raw), func(i int, rng *rand.Rand) {
		raw[i] = watch(&w, []stage{{small, 6 * hour}}, 0, rng, &eachPoll{newWindow(limits()), 100})[0].at
	})
	if k := within(raw, week); !isTooOften(k, len(raw), alpha) {
		t.Errorf("the raw ratio rolled back %d of %d rollouts at the limits: what condemns no broken rule proves nothing", k, len(raw))
	}
}

// The first polls know little of thresholds and variances, and must not bet as if they knew more: an hour at the limit, many times.
func TestFirstHour(t *testing.T) {
	t.Parallel()
	for _, l := range limits() {
		o := few(0, 600)
		w := atLimits(only(at(100), l.metric), []limit{l})
		cfg := config(limits(), analysis.AdvanceProof, weekPolls)
		all := o.try("first hour "+l.metric, o.Runs, func(*rand.Rand) trial {
			return trial{world: w, config: cfg, stages: []stage{{small, hour}}}
		})
		rolled := within(rolledBack(all), week)
		met := count(all, func(f found) bool { return f.metAt(l.metric) != never })
		t.Logf("%s: %d of %d rolled back, %d called within the limit", l.metric, rolled, o.Runs, met)
		if part := alpha / float64(len(limits())); isTooOften(rolled, o.Runs, part) {
			t.Errorf("%s: %d of %d rolled back, at most %d are chance at a fifth of alpha", l.metric, rolled, o.Runs, mostByChance(o.Runs, part))
		}
		if isTooOften(met, o.Runs, beta) {
			t.Errorf("%s: %d of %d called within the limit, at most %d are chance at beta", l.metric, met, o.Runs, mostByChance(o.Runs, beta))
		}
	}
}

// A whole rollout whose limits tighten while the weight rises, truth exactly at the tightest: alpha is for all of it.
func TestTighteningLimits(t *testing.T) {
	t.Parallel()
	rolled, n := 0, 0
	for _, rps := range rates[1:] {
		all := runTightening(few(15, 0), rps)
		rolled, n = rolled+within(rolledBack(all), week), n+len(all)
		t.Logf("%g rps: blamed %s", rps, blamed(all))
	}
	if isTooOften(rolled, n, alpha) {
		t.Errorf("%d of %d rollouts were rolled back, at most %d are chance at alpha %g", rolled, n, mostByChance(n, alpha), alpha)
	}
}

// Regressions are found with few more requests than any rule needs on average. A poll brings 75 canary requests at 100 rps, and nothing is known
// of a threshold before the first: where the bound is not much more than that, it comes on top.
func TestDetection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		limit limit
		times float64
		rps   float64
		most  float64 // times the bound
		polls float64 // on top
	}{
		{limits()[0], 1.5, 10, 1.6, 0},
		{limits()[0], 1.5, 100, 1.6, 0},
		{limits()[0], 2, 10, 1.6, 0},
		{limits()[0], 2, 100, 1.6, 0},
		{limits()[1], 1.5, 10, 2.1, 0},
		{limits()[1], 1.5, 100, 2.1, 0},
		{limits()[1], 2, 10, 2.1, 0},
		{limits()[1], 2, 100, 2.1, 0},
		{limits()[2], 1.5, 10, 2.1, 0},
		{limits()[2], 1.5, 100, 2.1, 0},
		{limits()[2], 2, 10, 2.1, 0},
		{limits()[2], 2, 100, 2.1, 1},
		{limits()[3], 1.2, 10, 2.1, 0},
		{limits()[4], 1.2, 10, 2.1, 0},
	} {
		r := regression{tt.limit, tt.times}
		w := at(tt.rps)
		name := r.name(w.Metric(r.metric)) + " at " + rate(tt.rps)
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := few(0, 60)
			o.Runs = max(o.Runs, 30) // fewer say little of a mean
			d := runDetection(o, tt.rps, r)
			onTop := tt.polls * tt.rps * step.Seconds() * small / 10_000
			t.Logf("%g canary requests on average, bound %g, ratio %.2f", d.requests(), d.bound, d.ratio())
			if ratio := (d.requests() - onTop) / d.bound; !(ratio <= tt.most) {
				t.Errorf("%g canary requests are %.2f times the bound of %g, want at most %g", d.requests(), ratio, d.bound, tt.most)
			}
		})
	}
}

func TestLateOnset(t *testing.T) {
	t.Parallel()
	o := few(0, 12)
	with, without := runLate(o, 2, true), runLate(o, 2, false)
	if k := within(with, week); k != o.Runs {
		t.Errorf("%d of %d late regressions were rolled back", k, o.Runs)
	}
	if a, b := quantileOf(with, 0.5), quantileOf(without, 0.5); a > 5*hour || a >= b {
		t.Errorf("after %s, and %s without late bets: want at most 5 h, and less", a, b)
	}
}

// The ladder promotes what is as good sooner than proof at a small weight, and promotes no regression.
func TestLadder(t *testing.T) {
	t.Parallel()
	o := few(0, 15)
	median := map[string]time.Duration{}
	for _, by := range ways()[:2] {
		var promoted []time.Duration
		for _, c := range climb(o, 100, by, 1) {
			promoted = append(promoted, c.promoted)
		}
		median[by.advance] = quantileOf(promoted, 0.5)
		for _, c := range climb(o, 100, by, 1.5) {
			if c.promoted != never || c.at == never {
				t.Errorf("%s: half as many errors again are promoted after %s, rolled back after %s", by.name, span(c.promoted), span(c.at))
			}
		}
	}
	if ladder, proof := median[analysis.AdvanceLadder], median[analysis.AdvanceProof]; ladder >= proof || proof > day {
		t.Errorf("promoted after %s by ladder and %s by proof, want less, and at most a day", span(ladder), span(proof))
	}
}

// A ramp and an incident in both versions: pooling across weights mistakes the one for the other.
func TestRampWithIncident(t *testing.T) {
	t.Parallel()
	o := few(0, 40)
	all := runRamp(o)
	if k := within(all[own], day); isTooOften(k, o.Runs, alpha) {
		t.Errorf("%d of %d were rolled back", k, o.Runs)
	}
	for name, times := range all {
		if k := within(times, day); name != own && k < o.Runs*9/10 {
			t.Errorf("%s rolled back %d of %d, want nearly all: the incident is not hard enough", name, k, o.Runs)
		}
	}
}

func TestZeroBaseline(t *testing.T) {
	t.Parallel()
	o := few(0, 25)
	for _, tt := range []struct {
		rate           float64
		rolled, within bool
		median         time.Duration
	}{{0, false, true, 6 * hour}, {0.0005, false, false, never}, {0.01, true, false, hour}, {1, true, false, step}} {
		all := runZeroBaseline(o, tt.rate)
		rolled, met := within(rolledBack(all), day), count(all, func(f found) bool { return f.metAt("error_rate") != never })
		if (rolled == o.Runs) != tt.rolled || (!tt.rolled && isTooOften(rolled, o.Runs, alpha)) {
			t.Errorf("canary at %g: %d of %d rolled back, want all: %t", tt.rate, rolled, o.Runs, tt.rolled)
		}
		if tt.within && met != o.Runs {
			t.Errorf("canary at %g: %d of %d called within the limit, want all", tt.rate, met, o.Runs)
		}
		if at := quantileOf(rolledBack(all), 0.5); tt.rolled && at > tt.median {
			t.Errorf("canary at %g: rolled back after %s, want at most %s", tt.rate, at, tt.median)
		}
	}
}

// Bursts at the limit: untold, the analysis is fooled; told φ from history, it is not, and still finds what is twice as bad.
func TestBursts(t *testing.T) {
	t.Parallel()
	o := few(0, 12)
	for _, tt := range []struct {
		times float64
		phi   func(world.World, *rand.Rand) float64
		least int
		most  int
	}{{1.1, independent, o.Runs * 3 / 4, o.Runs}, {1.1, estimated, 0, mostByChance(o.Runs, alpha)}, {2, estimated, o.Runs, o.Runs}} {
		all, mean := runBursts(o, tt.times, tt.phi)
		if k := within(rolledBack(all), week); k < tt.least || k > tt.most {
			t.Errorf("× %g at φ %.1f: %d of %d rolled back, want %d to %d", tt.times, mean, k, o.Runs, tt.least, tt.most)
		}
		if mean != 1 && (mean < 8 || mean > 12) {
			t.Errorf("φ is %.2f by history, want about 9 and the margin for chance", mean)
		}
	}
}

// Users who stay where they were put: the spread between cohorts has to be told.
func TestCohorts(t *testing.T) {
	t.Parallel()
	o := few(0, 30)
	untold := within(rolledBack(runCohorts(o, 1000, 2, false)), week)
	told := within(rolledBack(runCohorts(o, 1000, 2, true)), week)
	if !isTooOften(untold, o.Runs, alpha) {
		t.Errorf("%d of %d rolled back untold: the users are not different enough", untold, o.Runs)
	}
	if isTooOften(told, o.Runs, alpha) {
		t.Errorf("%d of %d rolled back although the spread was told", told, o.Runs)
	}
}

func TestHeavyTail(t *testing.T) {
	t.Parallel()
	o := few(0, 25)
	if k := within(rolledBack(runHeavyTail(o, 10, 1.1)), week); isTooOften(k, o.Runs, alpha) {
		t.Errorf("%d of %d at the limit were rolled back", k, o.Runs)
	}
	if k := within(rolledBack(runHeavyTail(o, 10, 1.5)), week); k != o.Runs {
		t.Errorf("%d of %d at × 1.5 were rolled back, want all", k, o.Runs)
	}
}

// At the latency limit neither coarse nor fine buckets claim more than they can know.
func TestBuckets(t *testing.T) {
	t.Parallel()
	o := few(0, 15)
	for _, bounds := range [][]float64{world.CoarseBounds(), world.FineBounds()} {
		all := runBuckets(o, bounds, 1.3)
		met := count(all, func(f found) bool { return f.metAt("p95_latency") != never })
		rolled := within(rolledBack(all), week)
		t.Logf("%d bounds: %d rolled back, %d called within the limit", len(bounds), rolled, met)
		if isTooOften(met, o.Runs, beta) || isTooOften(rolled, o.Runs, alpha) {
			t.Errorf("%d bounds: %d of %d called within the limit, %d rolled back", len(bounds), met, o.Runs, rolled)
		}
	}
}

func TestOddities(t *testing.T) {
	t.Parallel()
	o := few(0, 4)
	for i, odd := range oddities() {
		all := runOddity(o, odd)
		if k := within(rolledBack(all), week); k > 0 {
			t.Errorf("%s: %d of %d rolled back", odd.name, k, o.Runs)
		}
		for _, f := range all {
			if i >= 2 && f.most != 1 { // nothing to compare
				t.Errorf("%s: the e-value reached %g, want exactly 1", odd.name, f.most)
			}
		}
	}
}

// The same seed gives the same results, whatever the number of workers.
func TestDeterminism(t *testing.T) {
	t.Parallel()
	r := regression{limits()[0], 5}
	var first []time.Duration
	for _, workers := range []int{1, 3} {
		o := few(0, 6)
		o.Workers = workers
		got := rolledBack(runDetection(o, 10, r).all)
		if first == nil {
			first = got
		}
		for i := range got {
			if got[i] != first[i] || got[i] == never {
				t.Errorf("%d workers: rollout %d after %s, before after %s", workers, i, got[i], first[i])
			}
		}
	}
	o := few(0, 6)
	o.Seed++
	if other := rolledBack(runDetection(o, 10, r).all); quantileOf(other, 1) == quantileOf(first, 1) && quantileOf(other, 0) == quantileOf(first, 0) {
		t.Error("another seed gives the same results")
	}
}

// The engine's rule is of what it exports, and reads what it is told at the time it is told.
func TestEngineRule(t *testing.T) {
	t.Parallel()
	e := newEngine(config(limits()[:1], analysis.AdvanceEstimate, 10))
	s := analysis.Sample{Stable: analysis.Counts{N: 19_000, X: 190}, Canary: analysis.Counts{N: 1000, X: 10}}
	p := analysis.Poll{Number: 1, Weight: small, Requests: analysis.Requests{Stable: 19_000, Canary: 1000}, Samples: map[string]analysis.Sample{"error_rate": s}}
	if e.Poll(p, 0, step) || e.found.healthy != step || e.found.metAt("error_rate") != step {
		t.Errorf("%+v, want identical rates to be called within the limit at once", e.found)
	}
	s.Canary.X = 900
	p.Number, p.Samples = 2, map[string]analysis.Sample{"error_rate": s}
	if !e.Poll(p, 0, 2*step) || e.found.blame != limits()[0].text() {
		t.Errorf("%+v, want a rollback for errors", e.found)
	}
}
