package analysis

import (
	"fmt"
	"math"
	"testing"
)

// The stream of the reference values: n_c, x_c, n_s, x_s per poll, with a weight change before the fourth.
var referencePolls = [][4]float64{{50, 2, 950, 9}, {40, 0, 960, 12}, {60, 5, 940, 8}, {150, 9, 850, 10}, {0, 0, 1000, 11}, {30, 4, 970, 0}}

// The values were computed by another implementation, in plain arithmetic.
func TestTwoRateAgainstReferenceValues(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ a, b, worse, within float64 }{
		{0, 1.1, 142531.203612, 0.132183349935},
		{0.001, 1.1, 53807.1516786, 0.134874721345},
		{0.02, 0.98, 6.77046772257, 0.196915409001},
		{0.001, 1.5, 1480.26315421, 0.150710590538},
	} {
		t.Run(fmt.Sprintf("p_c <= %g + %g p_s", tt.a, tt.b), func(t *testing.T) {
			t.Parallel()
			worse, within := newTwoRate(tt.a, tt.b, worseBets), newTwoRate(tt.a, tt.b, withinBets)
			up, down := newMixture(len(worseBets)), newMixture(len(withinBets))
			logE := make([]float64, 20)
			for i, p := range referencePolls {
				if i == 3 {
					up.spend(weightShare)
				}
				if worse.factors(p[0], p[1], p[2], p[3], logE[:len(worseBets)]) {
					up.begin(firstShare, 0.001)
					up.multiply(logE[:len(worseBets)], false)
				}
				if within.factors(p[0], p[1], p[2], p[3], logE[:len(withinBets)]) {
					down.begin(1, 0)
					down.multiply(logE[:len(withinBets)], false)
				}
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
	test := meanTest{b: 1.1, sign: 1, bets: meanBets}
	m := newMixture(len(meanBets))
	var stable, canary variance
	logE := make([]float64, len(meanBets))
	want := []float64{1, 1, 0.829097698783, 0.847843019321, 0.892255275364, 1.18200615604}
	for i, p := range [][4]float64{{50, 60, 950, 900}, {40, 52, 960, 1000}, {60, 75, 940, 880}, {150, 190, 850, 860}, {30, 41, 970, 990}, {45, 70, 955, 930}} {
		if test.factors(stable, canary, Counts{N: p[2], X: p[3]}, Counts{N: p[0], X: p[1]}, logE) {
			m.begin(firstShare, 0.001)
			m.multiply(logE, false)
		}
		canary.add(p[0], p[1])
		stable.add(p[2], p[3])
		if got := m.value(); !near(got, want[i], 1e-10) {
			t.Errorf("E is %.12g after poll %d, want %.12g", got, i, want[i])
		}
	}
}

// At a=0, a bet is the likelihood ratio of the canary's share of all events: Lindon, Sanden & Shirikian 2022.
func TestTwoRateIsTheConditionalBinomialTest(t *testing.T) {
	t.Parallel()
	test := newTwoRate(0, 1.1, worseBets)
	logE := make([]float64, len(worseBets))
	test.factors(50, 7, 950, 20, logE)
	kappa := 1.1 * 50 / 950
	theta := kappa / (1 + kappa)
	for g, rho := range test.rho {
		bet := rho * kappa / (1 + rho*kappa)
		want := 7*math.Log(bet/theta) + 20*math.Log((1-bet)/(1-theta))
		if !near(logE[g], want, 1e-12) {
			t.Errorf("bet %d: log e is %g, want %g", g, logE[g], want)
		}
	}
}

// Each poll's factor has an expectation of at most 1 wherever the null holds, by exact enumeration of both versions' outcomes.
func TestTwoRateExpectsAtMostOneUnderTheNull(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ a, b, ps, nc, ns float64 }{
		{0, 1.1, 0.01, 5, 95}, {0.001, 1.1, 0.01, 20, 20}, {0.001, 1.03, 0.5, 30, 10}, {0.02, 0.98, 0.1, 10, 40},
		{0.05, 0, 0.3, 25, 7}, {0.05, 0, 0, 25, 0}, {0.2, 0, 0, 3, 0}, {-0.05, 1.05, 0.4, 12, 30},
	} {
		pc := tt.a + tt.b*tt.ps
		for _, direction := range []struct {
			name string
			bets []float64
		}{{"worse", worseBets}, {"within", withinBets}} {
			test := newTwoRate(tt.a, tt.b, direction.bets)
			mean, logE := make([]float64, len(direction.bets)), make([]float64, len(direction.bets))
			for xc := range int(tt.nc) + 1 {
				for xs := range int(tt.ns) + 1 {
					if !test.factors(tt.nc, float64(xc), tt.ns, float64(xs), logE) {
						t.Fatal("no evidence")
					}
					chance := probability(int(tt.nc), xc, pc) * probability(int(tt.ns), xs, tt.ps)
					for g, le := range logE {
						mean[g] += chance * math.Exp(le)
					}
				}
			}
			for g, m := range mean {
				if m > 1+1e-9 || m <= 0 {
					t.Errorf("%+v, %s, bet %d: E[e] is %.12g, want at most 1", tt, direction.name, g, m)
				}
			}
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
	logE := make([]float64, len(worseBets))
	relative, absolute := newTwoRate(0.001, 1.1, worseBets), newTwoRate(0.05, 0, worseBets)
	if relative.factors(0, 0, 100, 3, logE) || relative.factors(100, 30, 0, 0, logE) || absolute.factors(0, 0, 100, 3, logE) {
		t.Error("a poll with only one version is evidence")
	}
	if !absolute.factors(100, 30, 0, 0, logE) {
		t.Error("an absolute limit needs stable")
	}
}

func TestMixtureStaysFiniteAtExtremes(t *testing.T) {
	t.Parallel()
	test := newTwoRate(0.001, 1.1, worseBets)
	for _, sign := range []float64{0, 1} {
		m, logE := newMixture(len(worseBets)), make([]float64, len(worseBets))
		for range 10_000 {
			test.factors(1e6, sign*1e6, 1e6, (1-sign)*1e6, logE)
			m.begin(firstShare, 0.001)
			m.multiply(logE, false)
		}
		if v := m.value(); !finite(v) || v < 0 || (sign == 1) != (v == mostEValue) {
			t.Errorf("E is %g", v)
		}
	}
}

func TestCappedPollsBringNoEvidence(t *testing.T) {
	t.Parallel()
	m := newMixture(3)
	m.begin(firstShare, 0)
	m.multiply([]float64{2, 0.5, -1}, true)
	if got, want := m.value(), 0.5+0.5*(2+math.Exp(-1))/3; !near(got, want, 1e-12) {
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
		if got, inside := quantile(bounds, buckets, tt.q); !near(got, tt.want, 1e-12) || inside != tt.finite {
			t.Errorf("the %g-quantile is %g, %t, want %g, %t", tt.q, got, inside, tt.want, tt.finite)
		}
	}
	for _, tt := range []struct {
		r    rounding
		want float64
	}{{interpolated, 20 + 40*2.0/3}, {up, 60}, {down, 20}} {
		if got := above(bounds, buckets, 0.3, tt.r); !near(got, tt.want, 1e-12) {
			t.Errorf("%g are above 0.3 with rounding %d, want %g", got, tt.r, tt.want)
		}
	}
	if _, ok := quantile(bounds, make([]float64, 6), 0.5); ok {
		t.Error("an empty histogram has a median")
	}
}
