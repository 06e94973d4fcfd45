package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// A cohort of a share w of N users whose own rates have a coefficient of variation CV differs from the others by a standard deviation of
// CV/√(N·w·(1−w)), however long one looks.
func TestCohortSpread(t *testing.T) {
	t.Parallel()
	errors, _ := analysis.Preset("error_rate")
	const share, requests, rate = 0.05, 400, 0.05
	for _, tt := range []struct {
		name  string
		users int
		sigma float64 // of the logarithm of users' rates
	}{
		{"users alike", 4000, 0},
		{"users who differ", 4000, 0.8},
		{"few users who differ", 1000, 0.8},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(3, 3))
			b := NewBuilder([]analysis.Metric{errors}, began, began.Add(time.Hour), time.Minute, Users)
			var levels, squares float64
			for i := range tt.users {
				level := math.Exp(tt.sigma * rng.NormFloat64())
				levels += level
				squares += level * level
				for p := range 4 {
					x := distuv.Binomial{N: requests / 4, P: min(1, rate*level), Src: rng}.Rand()
					b.Add(began.Add(time.Duration(15*p+1)*time.Minute), fmt.Sprintf("user-%d", i), "error_rate", requests/4, x)
				}
			}
			n := float64(tt.users)
			cv := math.Sqrt(max(0, squares/n/(levels/n*levels/n)-1))
			want := cv / math.Sqrt(n*share*(1-share))
			got := b.History().cohortSpread(0, share, 1)
			// 200 cohorts of the same users are worth about as many as fit beside each other, 1/w: a standard error of √(w/2) of what
			// varies in all, which sampling adds to.
			sampling := 1 / (n * share * requests * rate)
			slack := 3 * math.Sqrt(share/2) * (want*want + sampling)
			if math.Abs(got*got-want*want) > slack {
				t.Errorf("cohort spread %.4f, want %.4f ± %.4f", got, want, math.Sqrt(slack))
			}
			t.Logf("cohort spread %.4f, want %.4f, sampling alone %.4f", got, want, math.Sqrt(sampling))
		})
	}
}

func TestCohortSpreadIsUnknown(t *testing.T) {
	t.Parallel()
	whole := synth{seed: 1, days: 0.1, step: time.Minute, rps: 5, errors: 0.05}
	few := synth{seed: 1, days: 0.1, step: time.Minute, rps: 0.1, errors: 0.01, by: Users, units: 50}
	for name, h := range map[string]*History{"no users": whole.history(), "too few events": few.history()} {
		if s := h.cohortSpread(0, 0.05, 1); !math.IsNaN(s) {
			t.Errorf("%s: cohort spread %v, want NaN", name, s)
		}
	}
}

// Users whose requests are slower for good make a cohort's quantile differ. What is measured in groups is what cohorts of the true
// distributions do.
func TestCohortSpreadOfQuantiles(t *testing.T) {
	t.Parallel()
	latency, _ := analysis.Preset("p95_latency")
	const share, users, requests = 0.10, 600, 300
	normal := distuv.UnitNormal
	for _, sigma := range []float64{0, 0.4} {
		t.Run(fmt.Sprintf("spread %g", sigma), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(5, 5))
			b := NewBuilder([]analysis.Metric{latency}, began, began.Add(time.Hour), time.Minute, Users)
			bounds := append(fine(), inf)
			levels := make([]float64, users)
			for i := range levels {
				levels[i] = sigma * rng.NormFloat64()
				upTo := make([]float64, len(bounds))
				for range requests {
					v := 2 * math.Exp(levels[i]+0.8*rng.NormFloat64())
					for k, bound := range bounds {
						if v <= bound {
							upTo[k]++
						}
					}
				}
				for k, bound := range bounds {
					b.AddBucket(began.Add(time.Duration(1+i%60)*time.Minute), fmt.Sprintf("user-%d", i), "p95_latency", bound, upTo[k])
				}
			}
			quantileOf := func(levels []float64) float64 { // of the mixture of lognormals, in logarithms
				low, high := -5.0, 10.0
				for range 60 {
					mid, below := (low+high)/2, 0.0
					for _, level := range levels {
						below += normal.CDF((mid - level) / 0.8)
					}
					if below < 0.95*float64(len(levels)) {
						low = mid
					} else {
						high = mid
					}
				}
				return low
			}
			squares := 0.0
			for range 200 {
				order := rng.Perm(users)
				var in, out []float64
				for k, u := range order {
					if k < users*share {
						in = append(in, levels[u])
					} else {
						out = append(out, levels[u])
					}
				}
				squares += square(quantileOf(in) - quantileOf(out))
			}
			want := math.Sqrt(squares / 200)
			h := b.History()
			got := h.cohortSpread(0, share, 1)
			if len(h.Users) != users {
				t.Errorf("%d users, want %d", len(h.Users), users)
			}
			// 40 groups tell a variance to √(2/39) of itself, that of sampling, about 0.015², included; four standard errors are allowed.
			slack := 4 * math.Sqrt(2.0/39) * (want*want + 0.015*0.015)
			if math.IsNaN(got) || math.Abs(got*got-want*want) > slack {
				t.Errorf("cohort spread %.4f, want %.4f", got, want)
			}
			t.Logf("cohort spread %.4f, want %.4f", got, want)
		})
	}
}
