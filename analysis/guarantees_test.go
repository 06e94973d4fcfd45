package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
)

// The poll in which a freeze ends was chosen by its own outcome: it counts for nothing.
func TestThePollThatThawsIsLeftOut(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...)
	c, err := ParseCondition("stable.error_rate > 0.20")
	if err != nil {
		t.Fatal(err)
	}
	cfg.FreezeWhen = []Condition{c}
	e := engine(t, cfg)
	e.BeginStage(0, 5000)
	for n := range int64(10) {
		e.Observe(one(n, 5000, "error_rate", rates(100, 50, 100, 50)))
	}
	before := e.tests[0].worse.value()
	e.Observe(one(10, 5000, "error_rate", rates(100_000, 10, 100_000, 9000)))
	if frozen, _ := e.Frozen(); frozen || e.tests[0].worse.value() != before {
		t.Errorf("frozen %t, E %g after the poll that thaws, want %g", frozen, e.tests[0].worse.value(), before)
	}
	e.Observe(one(11, 5000, "error_rate", rates(100_000, 10, 100_000, 9000)))
	if e.tests[0].worse.value() <= before {
		t.Error("the poll after it counts for nothing too")
	}
}

// A promotion criterion is asked at the end of a stage: until then its evidence takes nothing back.
func TestPromotionCriteriaWaitForTheGate(t *testing.T) {
	t.Parallel()
	cs := checks(t, RoleGuard, EveryStage, "error_rate_increase <= 3")
	cs = append(cs, checks(t, RolePromotion, EveryStage, "error_rate_increase <= 0.1", "task_completion_regression <= 0.02")...)
	e := engine(t, settings(Sequential, cs...))
	e.BeginStage(0, 5000)
	w := &world{r: rand.New(rand.NewPCG(91, 1)), perPoll: 2000, stableP: 0.05, canaryP: 0.1, stableD: 0.9, canaryD: 0.7}
	for range 100 {
		e.Observe(w.poll(5000))
	}
	if r := e.Evaluate(0, 1); r.Verdict != Met || r.Gate != Violated || r.EValue >= 100 {
		t.Errorf("the verdict is %s, the gate %s, E %g, want met, violated and less than 100", r.Verdict, r.Gate, r.EValue)
	}
}

// A proof counts the bucket that a threshold cuts against the canary, whole, and for stable not at all.
func TestProofCountsTheCutBucketAgainstTheCanary(t *testing.T) {
	t.Parallel()
	mt := &meter{metric: Metric{Name: "p95_latency", Kind: Quantile, Better: Lower, Quantile: 0.95}, bounds: []float64{1.8, 1.9, 3.5, 3.8}}
	mt.reference.add([]float64{940, 20, 30, 5, 5}) // the 95 % quantile is 1.85, twice that 3.7
	mt.look()
	c := checks(t, RoleGuard, EveryStage, "p95_latency_increase < 1")[0].Check
	var v view
	v.of(Sample{Stable: Counts{Buckets: []float64{90, 6, 4, 0, 0}}, Canary: Counts{Buckets: []float64{80, 5, 5, 9, 1}}})
	against, ok1 := hypothesisOf(c, mt, worse).events(&v)
	proof, ok2 := hypothesisOf(c, mt, within).events(&v)
	if !ok1 || !ok2 || !near(against.xc, 4, 1e-9) || !near(against.xs, 7, 1e-9) || proof.xc != 10 || proof.xs != 4 {
		t.Errorf("against the canary %+v, for it %+v: want 4 and 7 beyond the thresholds, and 10 and 4", against, proof)
	}
}

func hypothesisOf(c Check, mt *meter, on side) *hypothesis {
	h := newHypothesis(c, mt, Config{}, on)
	return &h
}

// No bet can lose everything, or more, on one trial.
func TestStakesAreCapped(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ nc, ns, theta float64 }{{1e4, 1, 0.9}, {1, 1e4, 0.9}, {1e4, 1, 0.01}, {50, 50, 0.5}, {1e6, 1, 1e-6}} {
		for _, test := range []twoRate{{b: 1}, {a: 0.001, b: 1.03}, {a: 0.02, b: 0.98}, {b: 0.5}} {
			for _, bet := range []float64{-8, -4, -1, 0.05, 1, 6} {
				for _, x := range [][2]float64{{0, 0}, {tt.nc, 0}, {0, tt.ns}, {tt.nc, tt.ns}} {
					d, ok := test.draw(tt.nc, x[0], tt.ns, x[1], tt.theta)
					if log := test.factor(&d, math.Expm1(bet)); ok && !finite(log) {
						t.Errorf("%+v, %+v, ln ρ %g, events %v: log e is %g", test, tt, bet, x, log)
					}
				}
			}
		}
	}
}

// While there is some evidence against the canary, nothing counts as shown.
func TestDoubtHoldsUpProof(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleStage, 0, "error_rate_increase < 0.50", "tool_error_rate_increase < 0.50")...)
	cfg.Advance = AdvanceProof
	e := engine(t, cfg)
	e.BeginStage(0, 5000)
	for n := range int64(100) {
		p := one(n, 5000, "error_rate", rates(1000, 50, 1000, 50))
		p.Samples["tool_error_rate"] = rates(1000, 50, 1000, 50)
		e.Observe(p)
	}
	if r := e.Evaluate(0, 1); r.Gate != Met {
		t.Fatalf("the gate is %s before any doubt", r.Gate)
	}
	e.tests[0].value = 2.2 * mostDoubt
	if r := e.Evaluate(0, 1); r.Gate != Undecided {
		t.Errorf("the gate is %s with evidence of %g against the canary, want undecided", r.Gate, r.EValue)
	}
}

// A share of traffic as it should be is called wrong no more often than the level allows.
func TestFalseMismatches(t *testing.T) {
	t.Parallel()
	const runs = 2000
	wrong := 0
	for i := range runs {
		traffic, r := newTraffic(), rand.New(rand.NewPCG(92, uint64(i)))
		for n := range int64(400) {
			// At the edge of what is allowed: a tenth more than the weight.
			p := trafficPoll(r, n, 5000, 0.55, 30, 1, true)
			traffic.observe(p)
			if traffic.off {
				wrong++
				break
			}
		}
	}
	if binomialTail(runs, wrong, trafficLevel) < 1e-4 {
		t.Errorf("%d of %d shares were called wrong, too many at a level of %g", wrong, runs, trafficLevel)
	}
}

// In the poll that begins to freeze, no rung of a ladder is ruled out.
func TestLadderKeepsNoEvidenceOfAFreezingPoll(t *testing.T) {
	t.Parallel()
	c := checks(t, RoleGuard, EveryStage, "error_rate_increase < 0.1")[0].Check
	mt := &meter{metric: Metric{Name: "error_rate", Kind: Ratio, Better: Lower}}
	mt.past.add(1000, 10)
	for _, capped := range []bool{true, false} {
		l := newLadder(c, mt, Config{})
		var v view
		v.of(rates(1e5, 1000, 1e5, 9000))
		l.observe(&v, 0.6, 0.05, capped)
		v.of(rates(1e5, 1000, 1e5, 1000))
		l.observe(&v, 0.01, 0.05, capped)
		lower, upper := l.interval()
		if none := math.IsNaN(lower) && math.IsNaN(upper); none != capped {
			t.Errorf("capped %t: the interval is %g to %g", capped, lower, upper)
		}
	}
}
