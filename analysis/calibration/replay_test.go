package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// A pseudo-canary has the stage's share of the traffic, whatever the units, and what it does not have, stable has.
func TestPseudoRolloutsFollowTheWeights(t *testing.T) {
	t.Parallel()
	for _, s := range []synth{
		{seed: 1, days: 1, step: time.Minute, rps: 5, errors: 0.05},
		{seed: 1, days: 1, step: time.Minute, rps: 5, errors: 0.05, by: Instances, units: 4},
		{seed: 1, days: 1, step: time.Minute, rps: 5, errors: 0.05, by: Users, units: 400},
	} {
		h := s.history()
		for _, weight := range []int{100, 500, 1000, 2500, 5000, 7500, 9000, full} {
			t.Run(fmt.Sprintf("%s at %d", h.By, weight), func(t *testing.T) {
				t.Parallel()
				r := day(t, h.Metrics, "error_rate_increase < 0.1")
				r.Stages = []Stage{{Name: "only", Weight: weight, Duration: 20 * time.Hour}}
				p := newPlayer(h, r, 100_000, 3)
				var requests analysis.Requests
				var errors, trials float64
				run := p.start(0, nil)
				run.play(func(int) {}, func(p analysis.Poll, _ int, _ bool, _ time.Duration) bool {
					requests.Canary += p.Requests.Canary
					requests.Stable += p.Requests.Stable
					s := p.Samples["error_rate"]
					trials += s.Canary.N + s.Stable.N
					errors += s.Canary.X + s.Stable.X
					return false
				})
				got, want := requests.Canary/(requests.Canary+requests.Stable), float64(weight)/full
				if h.By == Instances { // of four: a quarter at a time, or turns of one beside the other three
					want = map[int]float64{100: 0.0132, 500: 0.0625, 1000: 0.118, 9000: 0.75}[weight]
					if want == 0 {
						want = float64(weight) / full
					}
				}
				if math.Abs(got-want) > 0.05*want+0.02*math.Min(want, 1-want)+0.01*float64(boolInt(h.By == Users)) {
					t.Errorf("share %.4f, want %.4f", got, want)
				}
				if h.By == Whole && (trials != h.requests(run.from, run.from+p.length) || trials != requests.Canary+requests.Stable) {
					t.Errorf("%v trials, %v requests, want all %v of the time", trials, requests, h.requests(run.from, run.from+p.length))
				}
				if rate := errors / trials; math.Abs(rate-0.05) > 0.002 {
					t.Errorf("error rate %v, want 0.05", rate)
				}
			})
		}
	}
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

func TestGroup(t *testing.T) {
	t.Parallel()
	for share, want := range map[float64][2]int{0.5: {1, 2}, 0.25: {1, 4}, 0.75: {3, 4}, 0.05: {1, 20}, 0.1: {1, 10}, 0.6: {3, 5}, 0.001: {1, 200}} {
		if slots, of := group(share); slots != want[0] || of != want[1] {
			t.Errorf("%v is %d of %d slots, want %d of %d", share, slots, of, want[0], want[1])
		}
	}
}

// An injected regression changes what it says by its factor, and nothing else.
func TestWorsening(t *testing.T) {
	t.Parallel()
	h := synth{
		seed: 4, days: 2, step: time.Minute, rps: 3, diurnal: 0.5, errors: 0.02, bounds: fine(),
		metrics: []string{"error_rate", "task_completion_rate", "cost_per_task", "user_satisfaction", "p95_latency"},
	}.history()
	for metric, m := range h.Metrics {
		for _, factor := range []float64{1.2, 2, 5} {
			w := newWorsening(h, metric, factor)
			rng := rand.New(rand.NewPCG(1, 1))
			var before, after analysis.Counts
			bounds := h.Units[0].Metrics[metric].Bounds
			before.Buckets, after.Buckets = make([]float64, len(bounds)+1), make([]float64, len(bounds)+1)
			for poll := range h.Polls {
				c := &h.Units[0].Metrics[metric]
				s := analysis.Sample{Bounds: bounds, Canary: analysis.Counts{N: c.N.At(poll), X: c.X.At(poll)}}
				for b := range c.Buckets {
					s.Canary.Buckets = append(s.Canary.Buckets, c.Buckets[b].At(poll))
				}
				worse := w.apply(s, poll, rng)
				if worse.N != s.Canary.N || (m.Kind == analysis.Ratio && (worse.X < 0 || worse.X > worse.N)) {
					t.Fatalf("%s: %v of %v became %v of %v", m.Name, s.Canary.X, s.Canary.N, worse.X, worse.N)
				}
				for _, pair := range []struct{ to, from *analysis.Counts }{{&before, &s.Canary}, {&after, &worse}} {
					pair.to.N += pair.from.N
					pair.to.X += pair.from.X
					for b, n := range pair.from.Buckets {
						pair.to.Buckets[b] += n
					}
				}
			}
			got := after.X / before.X
			switch {
			case m.Kind == analysis.Quantile:
				got = quantile(bounds, after.Buckets, 0.9) / quantile(bounds, before.Buckets, 0.9)
			case m.Kind == analysis.Ratio && m.Better == analysis.Higher:
				got = (after.N - after.X) / (before.N - before.X)
			case m.Better == analysis.Higher:
				got = before.X / after.X
			}
			if math.Abs(got/factor-1) > 0.03 {
				t.Errorf("%s ×%v became ×%.3f", m.Name, factor, got)
			}
		}
	}
}

func TestTightest(t *testing.T) {
	t.Parallel()
	metrics := presets(t, "error_rate", "task_completion_rate", "p95_latency", "user_satisfaction", "cost_per_task", "safety_violations")
	for _, tt := range []struct {
		check string
		base  float64
		want  float64
	}{
		{"error_rate_increase < 0.10", 0.01, 1.10},
		{"error_rate < 0.05", 0.01, 5},
		{"error_rate_decrease >= 0", 0.01, 1},
		{"task_completion_drop < 0.05", 0.90, (1 - 0.855) / 0.1},
		{"task_completion_rate > 0.8", 0.90, 2},
		{"p95_latency_increase <= 0.5", 7, 1.5},
		{"p95_latency < 14", 7, 2},
		{"user_satisfaction_drop < 0.05", 4, 1 / 0.95},
		{"user_satisfaction >= 2", 4, 2},
		{"cost_per_task_regression < 0.2", 0.04, 1.2},
		{"safety_violations == 0", 0, inf},
	} {
		r := day(t, metrics, tt.check)
		m, err := analysis.Preset(r.Config.Checks[0].Check.Metric)
		if !err {
			t.Fatal(tt.check)
		}
		if got := r.tightest(m, tt.base); got != tt.want && !(math.Abs(got-tt.want) < 1e-9) {
			t.Errorf("%s at %v allows ×%v, want ×%v", tt.check, tt.base, got, tt.want)
		}
	}
}
