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
