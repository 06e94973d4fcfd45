package plan

import (
	"errors"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// What is measured of a made-up agent is what it was made of.
func TestMeasure(t *testing.T) {
	t.Parallel()
	w := world.Default()
	w.RPS, w.Diurnal = 50, 0
	w.Metric("p95_latency").Bounds = world.FineBounds()
	var metrics []analysis.Metric
	for _, m := range w.Metrics {
		metrics = append(metrics, m.Metric)
	}
	metrics = append(metrics, analysis.Metric{Name: "tool_error_rate", Kind: analysis.Ratio, Better: analysis.Lower}, analysis.Metric{Name: "queue", Kind: analysis.Value})
	rng := rand.New(rand.NewPCG(1, 1))
	const polls = 60
	var all []analysis.Poll
	for k := range polls {
		at := time.Duration(k) * 10 * time.Second
		all = append(all, w.Poll(rng, int64(k), at, at+10*time.Second, 1000))
	}
	got, notes, err := Measure(metrics, all, polls*10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want, by float64) {
		t.Helper()
		if !(math.Abs(got/want-1) <= by) {
			t.Errorf("%s %g, want %g within %g %%", what, got, want, 100*by)
		}
	}
	near("traffic", got.RPS, 50, 0.05)
	near("errors", got.Metrics["error_rate"].Value, 0.01, 0.2)
	near("completion", got.Metrics["task_completion_rate"].Value, 0.9, 0.01)
	near("p95", got.Metrics["p95_latency"].Value, 2*math.Exp(0.8*1.645), 0.05)
	near("its spread", got.Metrics["p95_latency"].Spread, 0.8, 0.1)
	near("its buckets", got.Metrics["p95_latency"].Width, 0.09, 0.01)
	near("cost", got.Metrics["cost_per_task"].Value, 0.04, 0.05)
	near("its spread", got.Metrics["cost_per_task"].Spread, 1.41, 0.3)
	near("satisfaction", got.Metrics["user_satisfaction"].Value, 3.98, 0.02)
	near("its share", got.Metrics["user_satisfaction"].Share, 0.1, 0.1)
	if b := got.Metrics["tool_error_rate"]; !b.Assumed || b.Value != assumedToolErrors {
		t.Errorf("tool errors %+v, want those assumed", b)
	}
	said(t, notes, "tool_error_rate: the source has no numbers of it")
	if _, there := got.Metrics["queue"]; there {
		t.Error("a plain value has a base")
	}
	for name, b := range got.Metrics {
		m, _ := analysis.Preset(name)
		if err := b.Validate(m); err != nil {
			t.Error(err)
		}
	}
}

func TestMeasureOfLittle(t *testing.T) {
	t.Parallel()
	metrics := analysis.Presets()
	poll := func(x, n float64, buckets ...float64) analysis.Poll {
		p := analysis.Poll{Requests: analysis.Requests{Stable: n}, Samples: map[string]analysis.Sample{
			"error_rate": {Stable: analysis.Counts{N: n, X: x}}, "cost_per_task": {Stable: analysis.Counts{N: n, X: x}},
			"safety_violations": {Stable: analysis.Counts{N: n}},
		}}
		if len(buckets) > 0 {
			p.Samples["p95_latency"] = analysis.Sample{Bounds: []float64{1, 2}, Stable: analysis.Counts{Buckets: buckets}}
		}
		return p
	}
	if _, _, err := Measure(metrics, []analysis.Poll{poll(0, 0)}, time.Minute); !errors.Is(err, ErrNoTraffic) {
		t.Errorf("%v, want no traffic", err)
	}
	if _, _, err := Measure(metrics, nil, time.Minute); !errors.Is(err, ErrNoTraffic) {
		t.Errorf("%v, want no traffic", err)
	}
	if _, _, err := Measure(metrics, []analysis.Poll{poll(0, 1)}, 0); err == nil {
		t.Error("no error for a window of nothing")
	}
	got, notes, err := Measure(metrics, []analysis.Poll{poll(0, 30, 1, 2, 3), poll(2, 30, 1, 2, 3)}, time.Minute)
	if err != nil || got.RPS != 1 {
		t.Fatalf("%+v, %v", got, err)
	}
	said(t, notes, "error_rate: only 2 of the rarer events in 60 trials", "cost_per_task: too few polls", "p95_latency: its quantile can't be told from 12 observations")
	said(t, notes, "safety_violations: none in 60 requests")
	if b := got.Metrics["safety_violations"]; !b.Assumed {
		t.Errorf("violations %+v: none were seen, which is not that there are none", b)
	}
	if b := got.Metrics["p95_latency"]; !b.Assumed {
		t.Errorf("p95 %+v, want it assumed", b)
	}
}

// TestSpreadOfUnevenPolls: how many observations a poll has says how much its mean may differ from the next one's.
func TestSpreadOfUnevenPolls(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 4))
	m := analysis.Metric{Name: "cost_per_task", Kind: analysis.Mean}
	var all []analysis.Poll
	for k := range 400 {
		n := []float64{5, 500}[k%2]
		c := analysis.Counts{N: n}
		for range int(n) {
			c.X += rng.ExpFloat64() // as far apart as they are large
		}
		all = append(all, analysis.Poll{Number: int64(k), Requests: analysis.Requests{Stable: n}, Samples: map[string]analysis.Sample{m.Name: {Stable: c}}})
	}
	s := seenOf(m, all)
	if got := s.spread / s.terms; !(math.Abs(got-1) < 0.3) {
		t.Errorf("variance of one observation %g, want 1", got)
	}
}

func TestMostThatARuleAllows(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"safety_violations < 3": 2, "safety_violations <= 3": 3, "safety_violations < 2.5": 2, "safety_violations <= 2.5": 2, "safety_violations == 0": 0,
	} {
		c, err := analysis.ParseCheck(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := most(c); got != want {
			t.Errorf("%s allows %g, want %g", text, got, want)
		}
	}
}
