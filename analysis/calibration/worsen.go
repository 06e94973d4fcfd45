package calibration

import (
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// worsening makes a pseudo-canary worse in one metric by a factor: more failures, longer durations, a higher mean, or a lower one where
// higher is better.
type worsening struct {
	metric int
	of     analysis.Metric
	factor float64
	rates  []float64 // bad events per trial around each poll, of ratios and counts
}

// newWorsening learns the rates by the hour: a version that is twice as bad is so by night as well.
func newWorsening(h *History, metric int, factor float64) *worsening {
	w := &worsening{metric: metric, of: h.Metrics[metric], factor: factor}
	if w.of.Kind != analysis.Ratio && w.of.Kind != analysis.Count {
		return w
	}
	all := together(h.series(metric))
	base := ratio(total(all.x), total(all.n))
	w.rates = make([]float64, h.Polls)
	hour := max(1, int(time.Hour/h.Step))
	for from := 0; from < h.Polls; from += hour {
		to := min(from+hour, h.Polls)
		n, x := total(all.n[from:to]), total(all.x[from:to])
		rate := (x + base) / (n + 1) // the base where there is nothing
		for p := from; p < to; p++ {
			w.rates[p] = rate
		}
	}
	return w
}

// apply is the canary's counts, made worse. Events are added among the trials that had none, each with the same chance, so that their number
// grows by the factor on average; there are never more than trials.
func (w *worsening) apply(s analysis.Sample, poll int, rng *rand.Rand) analysis.Counts {
	c := s.Canary
	higher := w.of.Better == analysis.Higher
	switch {
	case w.of.Kind == analysis.Quantile:
		return stretch(s.Bounds, c, w.factor)
	case w.of.Kind == analysis.Mean && higher:
		c.X /= w.factor
	case w.of.Kind == analysis.Mean:
		c.X *= w.factor
	case higher:
		c.X -= w.more(c.X, rng, poll)
	default:
		c.X += w.more(c.N-c.X, rng, poll)
	}
	return c
}

// more is how many of the good trials go wrong.
func (w *worsening) more(good float64, rng *rand.Rand, poll int) float64 {
	rate := w.rates[poll]
	chance := min(1, (w.factor-1)*rate/(1-min(rate, 0.999)))
	if good < 1 || chance <= 0 {
		return 0
	}
	return distuv.Binomial{N: math.Floor(good), P: chance, Src: rng}.Rand()
}

// stretch multiplies every observation by a factor of at least 1: what is in a bucket is taken to be spread evenly over it.
func stretch(bounds []float64, c analysis.Counts, factor float64) analysis.Counts {
	if len(c.Buckets) == 0 {
		return c
	}
	out := make([]float64, len(c.Buckets))
	low := 0.0
	for i, n := range c.Buckets {
		if i == len(bounds) {
			out[i] += n
			break
		}
		from, to := low*factor, bounds[i]*factor
		low = bounds[i]
		if n == 0 {
			continue
		}
		below := from
		for j := 0; below < to; j++ {
			if j == len(bounds) {
				out[j] += n * (to - below) / (to - from)
				break
			}
			if bounds[j] > below {
				upper := min(to, bounds[j])
				out[j] += n * (upper - below) / (to - from)
				below = upper
			}
		}
	}
	c.Buckets = out
	return c
}
