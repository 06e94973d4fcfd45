package calibration_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/internal/world"
)

const step = 30 * time.Second

// week is what one version of a world did in a week.
func week(w world.World, metrics []analysis.Metric) *calibration.History {
	const polls = 7 * 24 * 120
	rng := rand.New(rand.NewPCG(1, 2))
	began := time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	b := calibration.NewBuilder(metrics, began, began.Add(polls*step), step, calibration.Whole)
	for i := range polls {
		to := time.Duration(i+1) * step
		p := w.Poll(rng, int64(i), to-step, to, 5000)
		at := began.Add(to)
		b.Add(at, "", analysis.TotalRequests, p.Requests.Stable+p.Requests.Canary, 0)
		for _, m := range metrics {
			s := p.Samples[m.Name]
			for _, c := range []analysis.Counts{s.Stable, s.Canary} {
				if len(s.Bounds) == 0 {
					b.Add(at, "", m.Name, c.N, c.X)
					continue
				}
				upTo := 0.0
				for k, bound := range append(slices.Clone(s.Bounds), math.Inf(1)) {
					upTo += c.Buckets[k]
					b.AddBucket(at, "", m.Name, bound, upTo)
				}
			}
		}
	}
	return b.History()
}

// The world of the published tables has independent requests: φ is about 1 for all of its metrics. A regression there is caught when its
// calibration promised, though that has only seen the week before.
func TestPromisesAreKept(t *testing.T) {
	t.Parallel()
	w := world.Default()
	w.Metric("p95_latency").Bounds = world.FineBounds()
	r := calibration.Rollout{Config: analysis.Config{
		Method: analysis.Sequential, Alpha: 0.01, Beta: 0.05, Floor: 0.001, Advance: analysis.AdvanceEstimate, PollsPerWindow: 24 * 120,
	}, Stages: []calibration.Stage{{Name: "only", Weight: 500, Duration: 24 * time.Hour}}}
	for _, m := range w.Metrics {
		r.Config.Metrics = append(r.Config.Metrics, m.Metric)
	}
	for _, text := range []string{
		"error_rate_increase < 0.10", "task_completion_drop < 0.02", "p95_latency_increase < 0.30", "cost_per_task_increase < 0.10", "user_satisfaction_drop < 0.05",
	} {
		c, err := analysis.ParseCheck(text)
		if err != nil {
			t.Fatal(err)
		}
		r.Config.Checks = append(r.Config.Checks, analysis.RoleCheck{Check: c, Role: analysis.RoleGuard, Stage: analysis.EveryStage})
	}
	got, err := calibration.Calibrate(week(w, r.Config.Metrics), r, calibration.Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got.Metrics {
		of := w.Metric(m.Name)
		if of.Spread > 0 && (m.Deviation == nil || math.Abs(*m.Deviation/of.Spread-1) > 0.1) {
			t.Errorf("%s deviates by %v, want %v", m.Name, deref(m.Deviation), of.Spread)
		}
		if share := of.Share; share > 0 && math.Abs(m.Share/share-1) > 0.1 {
			t.Errorf("%v trials of %s per request, want %v", m.Share, m.Name, share)
		}
		if m.Width != nil && math.Abs(*m.Width-0.09) > 0.001 {
			t.Errorf("the bucket of %s is %v wide, want 0.09", m.Name, *m.Width)
		}
		if !m.Tested || m.Used > 1.35 {
			t.Errorf("φ of %s is %v of independent requests, want about 1", m.Name, m.Used)
		}
	}
	if !got.Replays.Settled || got.Replays.Used.TakenBack > 0.04 || got.Replays.Threshold < 0.5 || len(got.Buckets) > 0 {
		t.Errorf("replays %+v, buckets %+v", got.Replays, got.Buckets)
	}
	r.Config.Overdispersion = got.Overdispersion
	for _, tt := range []struct {
		metric string
		factor float64
	}{{"error_rate", 2}, {"task_completion_rate", 2}, {"p95_latency", 2}, {"cost_per_task", 1.2}} {
		promised := math.Inf(1)
		for _, p := range got.Promises {
			if p.Metric == tt.metric && p.Factor == tt.factor && p.Median != nil {
				promised = *p.Median
			}
		}
		worse := w
		worse.Regressions = []world.Regression{{Metric: tt.metric, Factor: tt.factor}}
		kept := caught(t, worse, r)
		// Medians of 30 and of 15 differ by a third or so by chance; promises are rounded up to the polls that were joined.
		if poll := got.Promises[0].Poll; kept > 1.6*promised+poll || promised > 2*kept+2*poll {
			t.Errorf("%s ×%v: promised after %.0f s, caught after %.0f s", tt.metric, tt.factor, promised, kept)
		}
	}
}

// caught is when half of 15 rollouts of a world's canary are rolled back, in seconds.
func caught(t *testing.T, w world.World, r calibration.Rollout) float64 {
	t.Helper()
	times := make([]float64, 15)
	for i := range times {
		engine, err := analysis.New(r.Config)
		if err != nil {
			t.Fatal(err)
		}
		rng := rand.New(rand.NewPCG(9, uint64(i)))
		engine.BeginStage(0, r.Stages[0].Weight)
		times[i] = math.Inf(1)
		// Each begins at another time of the day.
		from := time.Duration(i) * 96 * time.Minute
		for at := step; at <= r.Stages[0].Duration; at += step {
			engine.Observe(w.Poll(rng, int64(at/step), from+at-step, from+at, r.Stages[0].Weight))
			if engine.Peek(0, 1).Verdict == analysis.Violated {
				times[i] = at.Seconds()
				break
			}
		}
	}
	slices.Sort(times)
	return times[len(times)/2]
}

func deref(f *float64) float64 {
	if f == nil {
		return math.NaN()
	}
	return *f
}
