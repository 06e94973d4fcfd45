package plan

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/stat/distuv"
)

// The published numbers of canary requests that no test can do with fewer than on average: ln(M/α)/I with M = 5 metrics, α = 1 %, a canary of 5 %.
func TestInformationIsTheWaldBound(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name         string
		pc, ps, a, b float64
		want         float64
	}{
		{"errors 1 % twice", 0.02, 0.01, 0, 1.1, 2222},
		{"errors 1 % 1.5 times", 0.015, 0.01, 0, 1.1, 10017},
		{"errors 1 % five times", 0.05, 0.01, 0, 1.1, 183},
		{"failures 10 to 15 %", 0.15, 0.10, 0.02, 1, 1633},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := math.Log(500) / Information(tt.pc, tt.ps, tt.a, tt.b, 19)
			if math.Abs(got-tt.want) > 0.5 {
				t.Errorf("%.2f canary requests, want %.0f", got, tt.want)
			}
		})
	}
}

func TestInformationAtTheEdges(t *testing.T) {
	t.Parallel()
	inf := math.Inf(1)
	for _, tt := range []struct {
		name                string
		pc, ps, a, b, ratio float64
		want                float64
	}{
		{"at the limit", 0.11, 0.1, 0, 1.1, 19, 0},
		{"within the limit", 0.1, 0.1, 0, 1.1, 19, 0},
		{"nothing against nothing", 0, 0, 0.001, 1.1, 19, 0},
		{"no stable requests", 0.5, 0.01, 0, 1.1, 0, 0},
		{"an absolute limit", 0.02, 0.5, 0.01, 0, 19, 0.02*math.Log(2) + 0.98*math.Log(0.98/0.99)},
		{"an absolute limit, no stable", 0.02, 0, 0.01, 0, 0, 0.02*math.Log(2) + 0.98*math.Log(0.98/0.99)},
		{"an absolute limit of nothing", 0.02, 0, 0, 0, 0, inf},
		{"an absolute limit, all fail", 1, 0, 0.25, 0, 1, math.Log(4)},
		{"stable is known", 0.5, 0.25, 0, 1, inf, 0.5*math.Log(2) + 0.5*math.Log(0.5/0.75)},
		// All fail and stable never does: q to minimise −ln(q) − ln(1−q) is 1/2.
		{"all fail, stable never", 1, 0, 0, 1, 1, 2 * math.Ln2},
		// With B = 2 they meet at q = 1/2 where the canary's limit is 1, or before: −ln(2q) − ln(1−q) is least at 1/2.
		{"all fail, twice allowed", 1, 0, 0, 2, 1, math.Ln2},
		{"a NaN", math.NaN(), 0, 0, 1, 1, math.NaN()},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := Information(tt.pc, tt.ps, tt.a, tt.b, tt.ratio)
			if got != tt.want && !(math.Abs(got-tt.want) < 1e-12) && !(math.IsNaN(got) && math.IsNaN(tt.want)) {
				t.Errorf("%v, want %v", got, tt.want)
			}
		})
	}
}

// For a canary that equals stable and a small weight, what shows that it keeps +δ is about p·(δ−ln(1+δ)) a request.
func TestPromotionAtSmallWeights(t *testing.T) {
	t.Parallel()
	const p, delta = 0.001, 0.1
	got, want := Promotion(p, p, 0, 1+delta, 1e6), p*(delta-math.Log1p(delta))
	if math.Abs(got/want-1) > 0.01 {
		t.Errorf("%g, want %g", got, want)
	}
	if at := Promotion(0.11, 0.1, 0, 1.1, 19); at > 1e-15 {
		t.Errorf("%g at the limit, want 0", at)
	}
	if beyond := Promotion(0.2, 0.1, 0, 1.1, 19); beyond != 0 {
		t.Errorf("%g beyond the limit, want 0", beyond)
	}
	// A limit on the canary alone: −ln(1−q) of a clean request.
	if got, want := Promotion(0, 0.3, 0.01, 0, 19), -math.Log(0.99); math.Abs(got-want) > 1e-15 {
		t.Errorf("clean requests against 1 %%: %g, want %g", got, want)
	}
}

// The least divergence, found by trying every q on a fine grid.
func TestInformationIsTheLeast(t *testing.T) {
	t.Parallel()
	for _, pc := range []float64{0, 0.003, 0.02, 0.3, 0.9, 1} {
		for _, ps := range []float64{0, 0.004, 0.1, 0.8} {
			for _, null := range [][2]float64{{0, 1.1}, {0.001, 1.1}, {0.05, 0.95}, {0, 3}} {
				for _, ratio := range []float64{0.25, 1, 19} {
					a, b := null[0], null[1]
					want := math.Inf(1)
					for i := range 20_001 {
						if q := float64(i) / 20_000; a+b*q <= 1 {
							want = min(want, klBernoulli(pc, a+b*q)+scaled(ratio, klBernoulli(ps, q)))
						}
					}
					got := Information(pc, ps, a, b, ratio) + Promotion(pc, ps, a, b, ratio)
					if !(got <= want+1e-12 && got >= want-1e-3*want-2e-4) {
						t.Errorf("p_c %g, p_s %g, a %g, b %g, ratio %g: %g, want %g", pc, ps, a, b, ratio, got, want)
					}
				}
			}
		}
	}
}

// Counts of a small rate are as good as trials; the divergence of two rates on their own line is that of a binomial of their sum.
func TestCountInformation(t *testing.T) {
	t.Parallel()
	if got, want := CountInformation(0.0002, 0.0001, 0, 1.1, 19), Information(0.0002, 0.0001, 0, 1.1, 19); math.Abs(got/want-1) > 0.001 {
		t.Errorf("%g, want about %g", got, want)
	}
	// p_c = 2, p_s = 1, one to one, B = 1: three events, of which 2/3 are the canary's in place of 1/2.
	if got, want := CountInformation(2, 1, 0, 1, 1), 3*klBernoulli(2.0/3, 0.5); math.Abs(got-want) > 1e-12 {
		t.Errorf("%g, want %g", got, want)
	}
	if got, want := CountPromotion(1, 2, 0, 1, 1), 3*klBernoulli(1.0/3, 0.5); math.Abs(got-want) > 1e-12 {
		t.Errorf("%g, want %g", got, want)
	}
	if CountInformation(1, 1, 0, 1, 1) != 0 || CountPromotion(1, 1, 0, 1, 1) != 0 {
		t.Error("information on the line itself, want none")
	}
}

// Of normal observations with a known stable mean, d²/2σ² is what the log likelihood ratio gains on average.
func TestMeanInformation(t *testing.T) {
	t.Parallel()
	truth, null := distuv.Normal{Mu: 1.3, Sigma: 0.5}, distuv.Normal{Mu: 1.1, Sigma: 0.5}
	want := 0.0
	const steps = 20_000
	for i := range steps {
		x := truth.Quantile((float64(i) + 0.5) / steps)
		want += (truth.LogProb(x) - null.LogProb(x)) / steps
	}
	if got := MeanInformation(1.3, 1, 0.5, 0.5, 0, 1.1, math.Inf(1)); math.Abs(got/want-1) > 1e-3 {
		t.Errorf("%g, want %g", got, want)
	}
	if got, want := MeanInformation(1.2, 1, 2, 3, 0, 1, 4), 0.2*0.2/2/(4+9.0/4); math.Abs(got-want) > 1e-15 {
		t.Errorf("two samples: %g, want %g", got, want)
	}
	if MeanInformation(1.1, 1, 1, 1, 0.1, 1, 19) > 1e-30 || MeanInformation(1, 1, 0, 0, 0, 1, 0) != 0 {
		t.Error("information without a difference, want none")
	}
}
