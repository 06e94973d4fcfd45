package analysis

import (
	"fmt"
	"math"
	"testing"
)

// The stream of the reference values: n_c, x_c, n_s, x_s per poll, with a weight change before the fourth.
var referencePolls = [][4]float64{{50, 2, 950, 9}, {40, 0, 960, 12}, {60, 5, 940, 8}, {150, 9, 850, 10}, {0, 0, 1000, 11}, {30, 4, 970, 0}}

// shares is a hypothesis on a ratio, with a and b as they are.
func shares(a, b float64, on side) hypothesis {
	return hypothesis{meter: &meter{metric: Metric{Name: "error_rate", Kind: Ratio}}, side: on, phi: 1, rate: twoRate{a: a, b: b}}
}

// The values were computed by another implementation, in plain arithmetic.
func TestTwoRateAgainstReferenceValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ a, b, worse, within float64 }{
		{0, 1.1, 296697.665495, 0.309629595256},
		{0.001, 1.1, 144189.193375, 0.14152703121},
		{0.02, 0.98, 17.6257121151, 0.00199705415091},
		{0.001, 1.5, 4176.06611225, 0.0196703925019},
	} {
		t.Run(fmt.Sprintf("p_c <= %g + %g p_s", tt.a, tt.b), func(t *testing.T) {
			t.Parallel()
			limit, opposite := shares(tt.a, tt.b, worse), shares(tt.a, tt.b, within)
			opposite.meter = limit.meter
			up, down := newMixture(worseWeights), newMixture(withinWeights)
			scratch := make([]float64, 20)
			for i, p := range referencePolls {
				if i == 3 {
					up.spend(weightShare)
				}
				var s view
				s.of(rates(p[2], p[3], p[0], p[1]))
				limit.take(&s, &up, firstShare, 0.001, false, scratch)
				opposite.take(&s, &down, 1, 0, false, scratch)
				limit.meter.past.add(p[2], p[3])
			}
			if got := up.value(); !near(got, tt.worse, 1e-10) {
				t.Errorf("E is %.12g against the null, want %.12g", got, tt.worse)
			}
			if got := down.value(); !near(got, tt.within, 1e-10) {
				t.Errorf("E is %.12g against its opposite, want %.12g", got, tt.within)
			}
		})
	}
}

func TestMeanTestAgainstReferenceValues(t *testing.T) {
	t.Parallel()
	h := hypothesis{meter: &meter{metric: Metric{Kind: Mean}}, phi: 1, mean: meanTest{b: 1.1, sign: 1}}
	m := newMixture(meanWeights)
	want := []float64{1, 1, 1, 1, 1, 1.17363329988, 1.24085137559, 1.91516570165, 3.24872191736}
	for i, p := range [][4]float64{{50, 60, 950, 900}, {40, 52, 960, 1000}, {60, 75, 940, 880}, {150, 190, 850, 860}, {30, 41, 970, 990}, {45, 70, 955, 930}, {50, 70, 950, 940}, {52, 80, 948, 930}, {48, 75, 952, 960}} {
		var v view
		v.of(rates(p[2], p[3], p[0], p[1]))
		h.take(&v, &m, firstShare, 0.001, false, make([]float64, 20))
		h.meter.varCanary.add(p[0], p[1])
		h.meter.varStable.add(p[2], p[3])
		if got := m.value(); !near(got, want[i], 1e-10) {
			t.Errorf("E is %.12g after poll %d, want %.12g", got, i, want[i])
		}
	}
}

// At a=0 and without a foretold rate, a bet is the likelihood ratio of the canary's share of all events: Lindon, Sanden & Shirikian 2022.
func TestTwoRateIsTheConditionalBinomialTest(t *testing.T) {
	t.Parallel()
	kappa := 1.1 * 50 / 950
	theta := kappa / (1 + kappa)
	for _, counted := range []bool{false, true} {
		test := twoRate{b: 1.1, counted: counted}
		d, _ := test.draw(50, 7, 950, 20, 0)
		for _, bet := range worseBets {
			rho := math.Exp(bet)
			share := rho * kappa / (1 + rho*kappa)
			want := 7*math.Log(share/theta) + 20*math.Log((1-share)/(1-theta))
			if got := test.factor(&d, math.Expm1(bet)); !near(got, want, 1e-12) {
				t.Errorf("ln ρ %g: log e is %g, want %g", bet, got, want)
			}
		}
	}
}

// An absolute limit is tested by the likelihood ratio of a binomial.
func TestTwoRateOfOneSample(t *testing.T) {
	t.Parallel()
	test := twoRate{a: 0.05}
	d, _ := test.draw(100, 9, 0, 0, 0)
	for _, bet := range []float64{0.3, -0.5} {
		p := 0.05 * math.Exp(bet)
		want := 9*math.Log(p/0.05) + 91*math.Log((1-p)/0.95)
		if got := test.factor(&d, math.Expm1(bet)); !near(got, want, 1e-12) {
			t.Errorf("ln ρ %g: log e is %g, want %g", bet, got, want)
		}
	}
}

// Each poll's factor has an expectation of at most 1 wherever the null holds, whatever was foretold of stable, by exact enumeration of both
// versions' outcomes.
func TestTwoRateExpectsAtMostOneUnderTheNull(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ a, b, ps, nc, ns float64 }{
		{0, 1.1, 0.01, 5, 95}, {0.001, 1.1, 0.01, 20, 20}, {0.001, 1.03, 0.5, 30, 10}, {0.02, 0.98, 0.1, 10, 40},
		{0.05, 0, 0.3, 25, 7}, {0.05, 0, 0, 25, 0}, {0.2, 0, 0, 3, 0}, {-0.05, 1.05, 0.4, 12, 30},
	} {
		pc := tt.a + tt.b*tt.ps
		for _, bets := range [][]float64{worseBets, {-4, -2, -0.7, -0.1, -0.02}} {
			for _, thetaS := range []float64{0, tt.ps, tt.ps / 5, min(0.8, 3*tt.ps+0.01), 0.6} {
				expectAtMostOne(t, twoRate{a: tt.a, b: tt.b}, pc, tt.ps, tt.nc, tt.ns, thetaS, bets)
			}
		}
	}
}

func expectAtMostOne(t *testing.T, test twoRate, pc, ps, nc, ns, thetaS float64, bets []float64) {
	t.Helper()
	mean := make([]float64, len(bets))
	for xc := range int(nc) + 1 {
		for xs := range int(ns) + 1 {
			d, ok := test.draw(nc, float64(xc), ns, float64(xs), thetaS)
			if !ok { // no bet is made
				return
			}
			chance := probability(int(nc), xc, pc) * probability(int(ns), xs, ps)
			for g, bet := range bets {
				mean[g] += chance * math.Exp(test.factor(&d, math.Expm1(bet)))
			}
		}
	}
	for g, m := range mean {
		if m > 1+1e-9 || m <= 0 {
			t.Errorf("%+v at %g and %g, foretold %g, ln ρ %g: E[e] is %.12g, want at most 1", test, pc, ps, thetaS, bets[g], m)
		}
	}
}

// probability is that of k events in n trials at p.
func probability(n, k int, p float64) float64 {
	if p == 0 {
		return map[bool]float64{true: 1}[k == 0]
	}
	return binomialTail(n, k, p) - binomialTail(n, k+1, p)
}

func TestNoEvidence(t *testing.T) {
	t.Parallel()
	relative, absolute := twoRate{a: 0.001, b: 1.1}, twoRate{a: 0.05}
	for _, n := range [][2]float64{{0, 100}, {100, 0}} {
		if _, ok := relative.draw(n[0], min(3, n[0]), n[1], min(3, n[1]), 0); ok {
			t.Errorf("a poll of %g and %g trials is evidence", n[0], n[1])
		}
	}
	if _, ok := absolute.draw(0, 0, 100, 3, 0); ok {
		t.Error("a poll without the canary is evidence")
	}
	if _, ok := absolute.draw(100, 30, 0, 0, 0); !ok {
		t.Error("an absolute limit needs stable")
	}
	if _, ok := (twoRate{a: 0.5, b: 1}).draw(100, 30, 100, 30, 0.6); ok {
		t.Error("a null that holds whatever happens can be bet against")
	}
}

func TestMixtureStaysFiniteAtExtremes(t *testing.T) {
	t.Parallel()
	for _, test := range []twoRate{{a: 0.001, b: 1.1}, {b: 1}, {a: 0.3}, {b: 1.1, counted: true}, {a: 0.02, b: 0.98}} {
		for _, share := range []float64{0, 1} {
			m, logE := newMixture(worseWeights), make([]float64, len(worseBets))
			for range 10_000 {
				d, _ := test.draw(1e6, share*1e6, 1e6, (1-share)*1e6, 1e-6)
				for g, bet := range worseBets {
					logE[g] = test.factor(&d, math.Expm1(bet))
				}
				m.begin(firstShare, 0.001)
				m.multiply(logE, false)
			}
			if v := m.value(); !finite(v) || v < 0 || (share == 1) != (v == mostEValue) {
				t.Errorf("%+v: E is %g", test, v)
			}
		}
	}
}

func TestCappedPollsBringNoEvidence(t *testing.T) {
	t.Parallel()
	m := newMixture(logShares([]float64{1, 2, 1}))
	m.begin(firstShare, 0)
	m.multiply([]float64{2, 0.5, -1}, true)
	if got, want := m.value(), 0.2+0.8*(3+math.Exp(-1))/4; !near(got, want, 1e-12) {
		t.Errorf("E is %g, want %g", got, want)
	}
}

func TestHistogram(t *testing.T) {
	t.Parallel()
	bounds, buckets := []float64{0.1, 0.2, 0.5, 1, 2}, []float64{10, 30, 40, 15, 4, 1}
	for _, tt := range []struct {
		q, want float64
		finite  bool
	}{{0.95, 1, true}, {0.5, 0.2 + 0.3*10/40, true}, {0.05, 0.05, true}, {0.999, 2, false}} {
		if got, inside := quantile(bounds, buckets, total(buckets), tt.q); !near(got, tt.want, 1e-12) || inside != tt.finite {
			t.Errorf("the %g-quantile is %g, %t, want %g, %t", tt.q, got, inside, tt.want, tt.finite)
		}
	}
	for _, tt := range []struct {
		r    rounding
		want float64
	}{{interpolated, 20 + 40*2.0/3}, {up, 60}, {down, 20}} {
		if got := tailsOf(buckets, nil).above(bounds, 0.3, tt.r); !near(got, tt.want, 1e-12) {
			t.Errorf("%g are above 0.3 with rounding %d, want %g", got, tt.r, tt.want)
		}
	}
	if _, ok := quantile(bounds, make([]float64, 6), 0, 0.5); ok {
		t.Error("an empty histogram has a median")
	}
}

// Numbers beyond all reason decide nothing, and leave a state that can be read.
func TestUnreasonableNumbers(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "cost_per_task_increase <= 0.1")...)
	for _, odd := range []Sample{rates(1e-310, 0, 1e3, 1), rates(1e3, 1, 1e-310, 1e-310), rates(mostCountable, 0, 1, 1), rates(1, 1, mostCountable, mostCountable), rates(0, 5, 0, 5)} {
		e := engine(t, cfg)
		e.BeginStage(0, 5000)
		for n := range int64(200) {
			s := rates(1000, 10, 1000, 10)
			if n == 20 {
				s = odd
			}
			if n > 30 {
				s.Canary.X = 1000
			}
			p := one(n, 5000, "error_rate", s)
			p.Samples["cost_per_task"] = s
			e.Observe(p)
		}
		if r := e.Evaluate(0, 1); r.Verdict != Violated {
			t.Errorf("%+v: a canary that does nothing but fail is %s, E %g", odd, r.Verdict, r.EValue)
		}
		raw, err := e.State()
		if err == nil {
			err = engine(t, cfg).Restore(raw)
		}
		if err != nil {
			t.Errorf("%+v: the state can't be read: %v", odd, err)
		}
	}
}
