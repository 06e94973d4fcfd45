package analysis

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// ladderWorld is polls of one metric of each kind, whose canary is worse by a factor.
func ladderWorld(r *rand.Rand, metric string, n int64, weight int, factor float64) Poll {
	share := float64(weight) / bake
	nc, ns := poisson(r, 400*share), poisson(r, 400*(1-share))
	s := Sample{}
	switch metric {
	case "error_rate":
		s = rates(ns, binomial(r, ns, 0.05), nc, binomial(r, nc, 0.05*factor))
	case "task_completion_rate": // the completion falls to a share of stable's
		s = rates(ns, binomial(r, ns, 0.9), nc, binomial(r, nc, 0.9/factor))
	case "cost_per_task":
		sum := func(n, mean float64) Counts {
			c := Counts{N: n}
			for range int(n) {
				c.X += mean * r.ExpFloat64()
			}
			return c
		}
		s.Stable, s.Canary = sum(ns, 1), sum(nc, factor)
	case "p95_latency":
		draw := func(n, scale float64) Counts {
			c := Counts{Buckets: make([]float64, len(tenBounds)+1)}
			for range int(n) {
				x := scale * math.Exp(0.5*r.NormFloat64())
				i := 0
				for i < len(tenBounds) && x > tenBounds[i] {
					i++
				}
				c.Buckets[i]++
			}
			return c
		}
		s.Bounds, s.Stable, s.Canary = tenBounds, draw(ns, 1), draw(nc, factor)
	}
	return one(n, weight, metric, s)
}

// The interval holds the truth at every peek: each side may miss it with a chance of beta in a whole rollout. More misses than are counted as too
// many would be seen with a chance below 1e-4.
func TestConfidenceSequence(t *testing.T) {
	t.Parallel()
	const rollouts, polls = 60, 300
	for _, tt := range []struct {
		check          string
		factor, change float64
	}{
		{"error_rate_increase < 0.1", 1, 0}, {"error_rate_increase < 0.1", 1.5, 0.5}, {"error_rate_increase < 0.1", 1.1, 0.1},
		{"task_completion_regression < 0.02", 1, 0}, {"task_completion_regression < 0.02", 1 / 0.95, 0.05},
		{"cost_per_task_increase < 0.1", 1, 0}, {"cost_per_task_increase < 0.1", 1.3, 0.3},
		{"p95_latency_increase < 0.3", 1, 0}, {"p95_latency_increase < 0.3", 1.5, 0.5},
	} {
		t.Run(tt.check+" at "+number(tt.change), func(t *testing.T) {
			t.Parallel()
			cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, tt.check)...)
			cfg.Floor = 0
			missedBelow, missedAbove, width := 0, 0, 0.0
			for i := range rollouts {
				e, r := engine(t, cfg), rand.New(rand.NewPCG(51, uint64(i)))
				below, above := false, false
				var f Finding
				for n := range int64(polls) {
					stage, weight := int(n/100), []int{1000, 2500, 5000}[n/100]
					e.BeginStage(stage, weight)
					e.Observe(ladderWorld(r, cfg.Checks[0].Check.Metric, n, weight, tt.factor))
					f = e.Peek(stage, 1).Findings[0]
					below, above = below || f.Lower > tt.change+1e-9, above || f.Upper < tt.change-1e-9
				}
				if below {
					missedBelow++
				}
				if above {
					missedAbove++
				}
				if upper, lower := f.Upper, f.Lower; upper >= lower || math.IsNaN(lower) {
					width += upper / rollouts
				}
			}
			for side, missed := range map[string]int{"below": missedBelow, "above": missedAbove} {
				if binomialTail(rollouts, missed, cfg.Beta) < 1e-4 {
					t.Errorf("%d of %d intervals missed the truth from %s, too many at beta %g", missed, rollouts, side, cfg.Beta)
				}
			}
			t.Logf("missed from below %d, from above %d, upper end on average %.2f", missedBelow, missedAbove, width)
		})
	}
}

// The interval gets narrow enough to be of use: a canary like stable is shown to be less than 1.3 times worse, and one twice as bad to be
// more than 1.3 times worse.
func TestConfidenceSequenceNarrows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ factor, lower, upper float64 }{{1, math.NaN(), 0.3}, {2, 0.5, 4}} {
		e := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase < 0.1")...))
		r := rand.New(rand.NewPCG(52, 1))
		e.BeginStage(0, 2500)
		for n := range int64(400) {
			e.Observe(ladderWorld(r, "error_rate", n, 2500, tt.factor))
		}
		f := e.Evaluate(0, 1).Findings[0]
		if f.Upper > tt.upper || !(f.Lower >= tt.lower) && !math.IsNaN(tt.lower) {
			t.Errorf("factor %g: the interval is %g to %g, want it within %g to %g", tt.factor, f.Lower, f.Upper, tt.lower, tt.upper)
		}
	}
}

// Where the change is another one later, what speaks against the canary stays and the upper end goes.
func TestConfidenceSequenceOfAChangedCanary(t *testing.T) {
	t.Parallel()
	l := ladder{rungs: []rung{{change: 0}, {change: 0.1}, {change: 0.5}}}
	l.rungs[0].sides[worse].ruledOut, l.rungs[1].sides[worse].ruledOut = true, true
	l.rungs[1].sides[within].ruledOut, l.rungs[2].sides[within].ruledOut = true, true
	if lower, upper := l.interval(); lower != 0.1 || !math.IsNaN(upper) {
		t.Errorf("the interval is %g to %g, want 0.1 to NaN", lower, upper)
	}
	l.rungs[0].sides[worse].ruledOut = false // a rung beyond one that is not ruled out does not count
	if lower, upper := l.interval(); !math.IsNaN(lower) || upper != 0.1 {
		t.Errorf("the interval is %g to %g, want NaN to 0.1", lower, upper)
	}
}

func TestRungAfter(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		check         string
		stage, stages int
		stable, want  float64
	}{
		{"error_rate_increase < 0.1", 0, 3, 0.01, 1}, {"error_rate_increase < 0.1", 1, 3, 0.01, 0.3}, {"error_rate_increase < 0.1", 2, 3, 0.01, 0.1},
		{"error_rate_increase < 0.5", 1, 3, 0.01, 0.5}, {"error_rate_increase < 0.1", 0, 1, 0.01, 0.1}, {"error_rate_increase < 3", 0, 2, 0.01, 3},
		{"task_completion_regression < 0.02", 0, 3, 0.9, 0.1 / 0.9}, {"task_completion_regression < 0.02", 1, 3, 0.9, 0.03 / 0.9},
		{"user_satisfaction_drop < 0.05", 0, 3, 4, 0.5}, {"cost_per_task_increase < 0.1", 1, 3, 4, 0.3},
	} {
		c := checks(t, RoleGuard, EveryStage, tt.check)[0].Check
		m, _ := find(Presets(), c.Metric)
		if got := c.rungAfter(tt.stage, tt.stages, m, tt.stable); !near(got, tt.want, 1e-12) {
			t.Errorf("%s after stage %d of %d: %g, want %g", tt.check, tt.stage, tt.stages, got, tt.want)
		}
	}
}

// A rollout by the ladder passes its stages one after the other, each with the evidence that it asks for, and sooner than by proof. One that is 1.4
// times worse is not let past the middle.
func TestAdvanceLadder(t *testing.T) {
	t.Parallel()
	passed := func(advance string, factor float64) (stages int, polls int64) {
		cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase < 0.2", "error_rate < 0.5")...)
		cfg.Advance, cfg.Stages, cfg.Alpha = advance, 3, 1e-9
		e, r := engine(t, cfg), rand.New(rand.NewPCG(53, 1))
		weights := []int{500, 2500, 5000}
		for stages < 3 && polls < 4000 {
			e.BeginStage(stages, weights[stages])
			e.Observe(ladderWorld(r, "error_rate", polls, weights[stages], factor))
			polls++
			if report := e.Peek(stages, 1); report.Gate == Met {
				f := report.Findings[0]
				if most := []float64{1, 0.3, 0.2}[stages]; advance == AdvanceLadder && stages < 2 && !(f.Upper <= most) {
					t.Errorf("stage %d was passed with an interval up to %g, want %g", stages, f.Upper, most)
				}
				stages++
			}
		}
		return stages, polls
	}
	byLadder, ladderPolls := passed(AdvanceLadder, 1)
	byProof, proofPolls := passed(AdvanceProof, 1)
	if byLadder != 3 || byProof != 3 || ladderPolls >= proofPolls {
		t.Errorf("a canary like stable passed %d stages by ladder in %d polls and %d by proof in %d, want all 3 and sooner by ladder", byLadder, ladderPolls, byProof, proofPolls)
	}
	if stages, _ := passed(AdvanceLadder, 1.45); stages > 1 {
		t.Errorf("a canary 1.45 times worse passed %d stages, want at most the first", stages)
	}
}

// A limit beyond the histogram can't be judged, and the note says which bound is missing.
func TestUnobservable(t *testing.T) {
	t.Parallel()
	bounds := []float64{1, 2, 4}
	for _, tt := range []struct{ check, want string }{
		{"p95_latency_increase < 0.3", "the limit is at 4.6735 and the last bucket of the histogram ends at 4"},
		{"p95_latency < 5", "the limit is at 5 and the last bucket of the histogram ends at 4"},
	} {
		for role, verdict := range map[Role]Verdict{RoleGuard: Met, RoleStage: NoData} {
			cfg := settings(Sequential, checks(t, role, EveryStage, tt.check)...)
			e := engine(t, cfg)
			e.BeginStage(0, 5000)
			for n := range int64(5) {
				counts := Counts{Buckets: []float64{500, 300, 200, 10}}
				e.Observe(one(n, 5000, "p95_latency", Sample{Bounds: bounds, Stable: counts, Canary: counts}))
				e.requests.Canary++
			}
			r := e.Evaluate(0, 1)
			if f := r.Findings[0]; f.Verdict != NoData || !strings.Contains(f.Note, tt.want) || r.Gate != verdict {
				t.Errorf("%s as %s: %s, gate %s: %q, want no data, gate %s and %q", tt.check, role, f.Verdict, r.Gate, f.Note, verdict, tt.want)
			}
		}
	}
}

// A canary that is above all buckets is never waved through, by a guard neither: nobody knows how slow it is.
func TestAboveAllBucketsHolds(t *testing.T) {
	t.Parallel()
	for _, check := range []string{"p95_latency_increase < 0.2", "p95_latency_increase < 9"} {
		e := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, check)...))
		e.BeginStage(0, 5000)
		for n := range int64(50) {
			p := one(n, 5000, "p95_latency", Sample{
				Bounds: []float64{1, 5, 10}, Stable: Counts{Buckets: []float64{0, 900, 100, 0}}, Canary: Counts{Buckets: []float64{0, 0, 0, 1000}},
			})
			p.Requests = Requests{Stable: 1000, Canary: 1000}
			e.Observe(p)
		}
		want := Undecided
		if check == "p95_latency_increase < 0.2" { // 9 s, which the buckets can show
			want = Violated
		}
		if r := e.Evaluate(0, 1); r.Gate != want {
			t.Errorf("%s: the gate is %s, want %s: %s", check, r.Gate, want, r.Findings[0].Note)
		}
	}
}
