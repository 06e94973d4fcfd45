package world

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
)

const step = 15 * time.Second

func random(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 7)) }

// run draws polls from a time on, and calls f with each.
func run(w *World, seed uint64, from time.Duration, polls, weight int, f func(analysis.Poll)) {
	stream := w.Stream(random(seed))
	for i := range polls {
		at := from + time.Duration(i)*step
		f(stream.Poll(int64(i), at, at+step, weight))
	}
}

// sums are a metric's sums over polls.
func sums(w *World, seed uint64, from time.Duration, polls, weight int, metric string) (stable, canary analysis.Counts) {
	stable.Buckets = make([]float64, 200)
	canary.Buckets = make([]float64, 200)
	run(w, seed, from, polls, weight, func(p analysis.Poll) {
		add(&stable, p.Samples[metric].Stable)
		add(&canary, p.Samples[metric].Canary)
	})
	return stable, canary
}

func add(to *analysis.Counts, c analysis.Counts) {
	to.N += c.N
	to.X += c.X
	for i, b := range c.Buckets {
		to.Buckets[i] += b
	}
}

// near fails the test where x is further from want than 4.5 standard deviations, which chance does once in 150,000 times.
func near(t *testing.T, what string, x, want, sd float64) {
	t.Helper()
	if !(math.Abs(x-want) <= 4.5*sd) {
		t.Errorf("%s: %g, want %g ± %g", what, x, want, 4.5*sd)
	}
}

func TestMoments(t *testing.T) {
	t.Parallel()
	w := Default()
	w.Diurnal = 0
	const polls = 8000
	requests := w.RPS * step.Seconds() * polls
	var conversations analysis.Requests
	var all analysis.Requests
	run(&w, 1, 0, polls, 500, func(p analysis.Poll) {
		all.Stable += p.Requests.Stable
		all.Canary += p.Requests.Canary
		conversations.Stable += p.Conversations.Stable
		conversations.Canary += p.Conversations.Canary
	})
	near(t, "stable requests", all.Stable, 0.95*requests, math.Sqrt(0.95*requests))
	near(t, "canary requests", all.Canary, 0.05*requests, math.Sqrt(0.05*requests))
	if all != conversations {
		t.Errorf("%v requests, %v conversations, want the same without bursts", all, conversations)
	}
	for metric, want := range map[string]struct{ mean, sd float64 }{
		"error_rate":           {0.01, math.Sqrt(0.01 * 0.99)},
		"task_completion_rate": {0.9, 0.3},
		"cost_per_task":        {0.04, 0.04 * 1.41},
		"user_satisfaction":    {3.98, 1.135},
	} {
		stable, canary := sums(&w, 2, 0, polls, 500, metric)
		near(t, metric+" of stable", stable.X/stable.N, want.mean, want.sd/math.Sqrt(stable.N))
		near(t, metric+" of the canary", canary.X/canary.N, want.mean, want.sd/math.Sqrt(canary.N))
	}
	stable, _ := sums(&w, 3, 0, polls, 500, "user_satisfaction")
	near(t, "ratings", stable.N, 0.095*requests, math.Sqrt(0.095*requests))
}

// The buckets hold the shares that a lognormal has there, coarse or fine, few or many a poll.
func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, bounds := range [][]float64{nil, FineBounds()} {
		for _, rps := range []float64{1, 100} {
			w := Default()
			w.RPS, w.Diurnal = rps, 0
			w.Metric("p95_latency").Bounds = bounds
			stable, canary := sums(&w, 4, 0, 3000, 3000, "p95_latency")
			for i, b := range w.Metric("p95_latency").bounds() {
				below := 0.0
				for _, c := range stable.Buckets[:i+1] {
					below += c
				}
				p := normalCDF(math.Log(b/2) / 0.8)
				if stable.N*p*(1-p) > 25 { // else the normal approximation does not hold
					near(t, "share below a bound", below/stable.N, p, math.Sqrt(p*(1-p)/stable.N))
				}
			}
			if got := sum(canary.Buckets); got != canary.N {
				t.Errorf("%g observations in buckets, want %g", got, canary.N)
			}
		}
	}
}

func sum(x []float64) float64 {
	total := 0.0
	for _, v := range x {
		total += v
	}
	return total
}

func TestFactors(t *testing.T) {
	t.Parallel()
	w := Default()
	w.Diurnal = 0
	w.Regressions = []Regression{
		{"error_rate", 2, day}, {"task_completion_rate", 1.5, day}, {"cost_per_task", 1.2, day}, {"user_satisfaction", 0.9, day},
		{"p95_latency", 3, day},
	}
	w.Incidents = []Incident{{Both, "error_rate", 5, 2 * day, 3 * day}, {Stable, "user_satisfaction", 1.1, 2 * day, 3 * day}}
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		metric         string
		from           time.Duration
		stable, canary float64
		sd             float64
	}{
		{"error_rate", 0, 0.01, 0.01, 0.1},
		{"error_rate", day, 0.01, 0.02, 0.14},
		{"error_rate", 2 * day, 0.05, 0.1, 0.3},
		{"error_rate", 3 * day, 0.01, 0.02, 0.14}, // the incident is over
		{"task_completion_rate", day, 0.9, 0.85, 0.36},
		{"cost_per_task", day, 0.04, 0.048, 0.07},
		{"user_satisfaction", day, 3.98, 3.582, 1.4},
		{"user_satisfaction", 2 * day, 4.378, 3.582, 1.4},
	} {
		stable, canary := sums(&w, 5, tt.from, 5000, 5000, tt.metric)
		near(t, tt.metric+" of stable", stable.X/stable.N, tt.stable, tt.sd/math.Sqrt(stable.N))
		near(t, tt.metric+" of the canary", canary.X/canary.N, tt.canary, tt.sd/math.Sqrt(canary.N))
	}
	_, canary := sums(&w, 6, day, 5000, 5000, "p95_latency")
	p := normalCDF(math.Log(6.0/6) / 0.8) // the sixth bound is the median, 3 × 2 s
	near(t, "canary below its median", sum(canary.Buckets[:7])/canary.N, p, 0.5/math.Sqrt(canary.N))
}

func TestSwing(t *testing.T) {
	t.Parallel()
	w := Default()
	noon, midnight := day/4, 3*day/4
	for _, tt := range []struct {
		metric string
		swing  float64
		bad    func(analysis.Counts) float64
	}{
		{"error_rate", 0.4, func(c analysis.Counts) float64 { return c.X / c.N }},
		{"task_completion_rate", 0.2, func(c analysis.Counts) float64 { return 1 - c.X/c.N }},
	} {
		high, _ := sums(&w, 7, noon, 200, 500, tt.metric)
		low, _ := sums(&w, 7, midnight, 200, 500, tt.metric)
		near(t, "traffic", high.N/low.N, 3, 3*math.Sqrt(1/high.N+1/low.N))
		ratio := tt.bad(high) / tt.bad(low)
		near(t, tt.metric, ratio, (1+tt.swing)/(1-tt.swing), ratio*math.Sqrt(1/(high.N*tt.bad(high))+1/(low.N*tt.bad(low))))
	}
}

// Quantiles swing with the traffic, too: at noon fewer are below the bound that is the median on the whole.
func TestQuantilesSwing(t *testing.T) {
	t.Parallel()
	w := Default()
	at := slices.Index(w.Metric("p95_latency").bounds(), w.Metric("p95_latency").Base)
	if at < 0 {
		t.Fatal("the median is no bound")
	}
	below := func(from time.Duration) float64 {
		c, _ := sums(&w, 7, from, 200, 500, "p95_latency")
		return sum(c.Buckets[:at+1]) / c.N
	}
	noon, midnight := below(day/4), below(3*day/4)
	if !(noon < 0.45 && midnight > 0.55) {
		t.Errorf("below the median are %g at noon and %g at midnight, want clearly fewer and more than half", noon, midnight)
	}
}

// Bursts keep the rate and multiply the variance of events by 2·size−1.
func TestBursts(t *testing.T) {
	t.Parallel()
	w := Default()
	w.Diurnal = 0
	w.Metric("error_rate").Burst = 5
	n, x, square := 0.0, 0.0, 0.0
	const polls = 20000
	run(&w, 8, 0, polls, 500, func(p analysis.Poll) {
		c := p.Samples["error_rate"].Stable
		if c.X > c.N || p.Requests.Stable != c.N || p.Conversations.Stable > c.N {
			t.Fatalf("%g events of %g requests", c.X, c.N)
		}
		n += c.N
		x += c.X
		square += c.X * c.X
	})
	near(t, "error rate", x/n, 0.01, math.Sqrt(9*0.01/n))
	mean := x / polls
	dispersion := (square/polls - mean*mean) / mean
	if dispersion < 8.2 || dispersion > 9.8 {
		t.Errorf("the variance of events is %.2f times their mean, want 9", dispersion)
	}
}

func TestHeavyTail(t *testing.T) {
	t.Parallel()
	w := Default()
	w.RPS, w.Diurnal = 40, 0
	m := w.Metric("cost_per_task")
	m.Shape, m.Spread = Lognormal, 1
	stable, _ := sums(&w, 9, 0, 2000, 500, "cost_per_task")
	near(t, "mean", stable.X/stable.N, 0.04, 0.04/math.Sqrt(stable.N))
}

func TestKinds(t *testing.T) {
	t.Parallel()
	w := World{RPS: 10, Metrics: []Metric{
		{Metric: analysis.Metric{Name: "safety_violations", Kind: analysis.Count, Better: analysis.Lower}, Base: 0.1},
		{Metric: analysis.Metric{Name: "queue_depth", Kind: analysis.Value, Better: analysis.Lower}, Base: 7},
	}}
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	p := w.Poll(random(10), 3, 0, time.Hour, 10_000)
	if p.Number != 3 || p.Weight != 10_000 || p.Requests.Stable != 0 || p.Requests.Canary < 30_000 {
		t.Errorf("poll %+v, want number 3 and all requests the canary's", p)
	}
	if c := p.Samples["safety_violations"].Canary; c.N != p.Requests.Canary || c.X < 2500 || c.X > 4500 {
		t.Errorf("%+v, want a tenth of the requests", c)
	}
	want := analysis.Sample{Canary: analysis.Counts{Value: 7, HasValue: true}, Stable: analysis.Counts{Value: 7}}
	if diff := cmp.Diff(want, p.Samples["queue_depth"]); diff != "" {
		t.Errorf("value (-want +got):\n%s", diff)
	}
}

func TestDeterminism(t *testing.T) {
	t.Parallel()
	w := Default()
	w.Metric("error_rate").Burst = 3
	w.Metric("p95_latency").Bounds = FineBounds()
	var first, again, other []analysis.Poll
	run(&w, 11, 0, 50, 500, func(p analysis.Poll) { first = append(first, p) })
	run(&w, 11, 0, 50, 500, func(p analysis.Poll) { again = append(again, p) })
	run(&w, 12, 0, 50, 500, func(p analysis.Poll) { other = append(other, p) })
	if diff := cmp.Diff(first, again); diff != "" {
		t.Errorf("the same seed (-first +again):\n%s", diff)
	}
	rng := random(11)
	for i := range first {
		at := time.Duration(i) * step
		if diff := cmp.Diff(first[i], w.Poll(rng, int64(i), at, at+step, 500)); diff != "" {
			t.Fatalf("poll %d by itself (-of a stream +by itself):\n%s", i, diff)
		}
	}
	if cmp.Equal(first, other) {
		t.Error("another seed draws the same polls")
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		change func(*World)
		want   string
	}{
		{"default", func(*World) {}, ""},
		{"no traffic", func(w *World) { w.RPS = 0 }, "rps 0: want a number above 0"},
		{"traffic that is no number", func(w *World) { w.RPS = math.NaN() }, "rps NaN"},
		{"swing", func(w *World) { w.Diurnal = 1.5 }, "diurnal 1.5: want a share from 0 to 1"},
		{"no metrics", func(w *World) { w.Metrics = nil }, "want at least one"},
		{"twice", func(w *World) { w.Metrics = append(w.Metrics, w.Metrics[0]) }, `metric "error_rate" is there twice`},
		{"rate", func(w *World) { w.Metrics[0].Base = 2 }, `metric "error_rate": base 2: want a rate per trial from 0 to 1`},
		{"kind", func(w *World) { w.Metrics[0].Kind = "x" }, `kind "x": want ratio, count`},
		{"traffic as a metric", func(w *World) { w.Metrics[0].Name = analysis.TotalRequests }, "is the traffic itself"},
		{"nameless", func(w *World) { w.Metrics[0].Name = "" }, "a metric has no name"},
		{"share", func(w *World) { w.Metrics[0].Share = -1 }, "share -1: want a share from 0 to 1"},
		{"burst", func(w *World) { w.Metrics[0].Burst = 0.5 }, "burst 0.5: want a mean size"},
		{"burst of amounts", func(w *World) { w.Metrics[3].Burst = 5 }, "only the events of a ratio or a count"},
		{"burst of a share", func(w *World) { w.Metrics[0].Burst, w.Metrics[0].Share = 5, 0.5 }, "whose retries all report"},
		{"median", func(w *World) { w.Metrics[2].Base = 0 }, "base 0: want a median in seconds above 0"},
		{"sigma", func(w *World) { w.Metrics[2].Spread = 0 }, "spread 0: want the sigma"},
		{"bounds", func(w *World) { w.Metrics[2].Bounds = []float64{1, 1} }, "bound 1: want bounds above 0 that rise"},
		{"mean", func(w *World) { w.Metrics[3].Base = -1 }, "base -1: want a mean above 0"},
		{"shape", func(w *World) { w.Metrics[3].Shape = "cauchy" }, `shape "cauchy": want gamma or lognormal`},
		{"ratings", func(w *World) { w.Metrics[4].Ratings = []float64{0.5, 0.4} }, "sum of the shares of ratings 0.9"},
		{"mean of ratings", func(w *World) { w.Metrics[4].Base = 3 }, "base 3: want the ratings' mean, which is 3.98"},
		{"unknown", func(w *World) { w.Regressions = []Regression{{"latency", 2, 0}} }, `regression of "latency": it is not a metric of this world, want one of cost_per_task, error_rate, p95`},
		{"factor", func(w *World) { w.Regressions = []Regression{{"error_rate", -1, 0}} }, "factor -1: want a number from 0"},
		{"past", func(w *World) { w.Regressions = []Regression{{"error_rate", 2, -1}} }, "want 0 or later"},
		{"impossible rating", func(w *World) { w.Regressions = []Regression{{"user_satisfaction", 2, 0}} }, "makes a rating of 7.96: want one from 1 to 5"},
		{"no time", func(w *World) { w.Regressions = []Regression{{"p95_latency", 0, 0}} }, "factor 0: want a duration above 0"},
		{"arm", func(w *World) { w.Incidents = []Incident{{"all", "error_rate", 2, 0, day}} }, `arm "all": want canary, stable or both`},
		{"end", func(w *World) { w.Incidents = []Incident{{Both, "error_rate", 2, day, day}} }, "an end after the start"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			w := Default()
			tt.change(&w)
			err := w.Validate()
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	bad := World{RPS: -1, Diurnal: 2}
	if err := bad.Validate(); strings.Count(err.Error(), "want") != 3 {
		t.Errorf("%v, want all three problems", err)
	}
}

// A week of polls every 15 s with five metrics.
func BenchmarkWeek(b *testing.B) {
	for _, rps := range []float64{1, 10, 100} {
		b.Run("rps="+map[float64]string{1: "1", 10: "10", 100: "100"}[rps], func(b *testing.B) {
			w := Default()
			w.RPS = rps
			for b.Loop() {
				run(&w, 1, 0, int(7*day/step), 500, func(analysis.Poll) {})
			}
		})
	}
}
