package world

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// all is a weight of 1 in basis points.
const all = 10_000

// swingStep is how often the day's swing moves.
const swingStep = time.Minute

// How much a metric swings with the traffic, as a share of its swing.
const (
	errorSwing    = 0.8
	failureSwing  = 0.4
	quantileSwing = 0.3
)

// Poll draws what was counted in [from, to) since the start, with the canary's weight in basis points. It is the same again for the same
// rng, arguments and World, which has to be valid. The metric total_requests has no sample: the poll itself says how many there were.
func (w *World) Poll(rng *rand.Rand, number int64, from, to time.Duration, weight int) analysis.Poll {
	return w.Stream(rng).Poll(number, from, to, weight)
}

// Stream draws polls of one World one after the other: the same as its Poll, and faster. It is not safe for concurrent use.
type Stream struct {
	*World
	rng  *rand.Rand
	at   time.Duration // the middle of the poll
	sin  float64       // of the time of day
	told [2][]shares   // by arm, stable first, and metric
}

// shares are those of observations below the bounds of a histogram.
type shares struct {
	median float64
	cdf    []float64
}

// Stream begins to draw with rng. The World must not change while it is used.
func (w *World) Stream(rng *rand.Rand) *Stream {
	return &Stream{World: w, rng: rng, told: [2][]shares{make([]shares, len(w.Metrics)), make([]shares, len(w.Metrics))}}
}

// Poll is that of the World.
func (d *Stream) Poll(number int64, from, to time.Duration, weight int) analysis.Poll {
	w := d.World
	d.at = from + (to-from)/2
	d.sin = math.Sin(2 * math.Pi * d.at.Truncate(swingStep).Seconds() / day.Seconds())
	requests := w.RPS * max(0, (to-from).Seconds()) * (1 + w.Diurnal*d.sin)
	stable := d.arm(Stable, requests*float64(all-weight)/all)
	canary := d.arm(Canary, requests*float64(weight)/all)

	p := analysis.Poll{
		Number: number, Weight: weight,
		Requests:      analysis.Requests{Stable: stable.requests, Canary: canary.requests},
		Conversations: analysis.Requests{Stable: stable.conversations, Canary: canary.conversations},
		Samples:       make(map[string]analysis.Sample, len(w.Metrics)),
	}
	for i := range w.Metrics {
		s := analysis.Sample{Stable: stable.counts[i], Canary: canary.counts[i]}
		if w.Metrics[i].Kind == analysis.Quantile {
			s.Bounds = w.Metrics[i].bounds()
		}
		p.Samples[w.Metrics[i].Name] = s
	}
	return p
}

// traffic is what one version did.
type traffic struct {
	requests, conversations float64
	counts                  []analysis.Counts // by metric
}

// arm draws one version's poll, with the mean of its requests.
func (d *Stream) arm(arm Arm, mean float64) traffic {
	t := traffic{counts: make([]analysis.Counts, len(d.Metrics))}
	t.requests = poisson(d.rng, mean*d.single(arm))
	t.conversations = t.requests
	for i := range d.Metrics { // first, since retries are requests of every metric
		m := &d.Metrics[i]
		if m.Burst > 1 {
			k := poisson(d.rng, mean*d.badRate(m, arm)/m.Burst)
			t.counts[i].X = bursts(d.rng, k, m.Burst)
			t.requests += t.counts[i].X
			t.conversations += k
		}
	}
	for i := range d.Metrics {
		t.counts[i] = d.count(i, arm, t.requests, t.counts[i].X)
	}
	return t
}

// single is the share of requests that are in no burst.
func (d *Stream) single(arm Arm) float64 {
	share := 1.0
	for i := range d.Metrics {
		if m := &d.Metrics[i]; m.Burst > 1 {
			share -= d.badRate(m, arm)
		}
	}
	return max(0, share)
}

// count draws a metric, by its index, of n requests, of which burst are bad ones that came in bursts.
func (d *Stream) count(i int, arm Arm, n, burst float64) analysis.Counts {
	m := &d.Metrics[i]
	if m.Share > 0 && m.Share < 1 {
		n = binomial(d.rng, n, m.Share)
	}
	switch m.Kind {
	case analysis.Mean:
		return analysis.Counts{N: n, X: d.sum(m, arm, n)}
	case analysis.Quantile:
		return analysis.Counts{N: n, Buckets: d.buckets(i, arm, n)}
	case analysis.Value:
		value := m.Base * d.factor(m, arm) * (1 + m.Spread*d.rng.NormFloat64())
		return analysis.Counts{Value: value, HasValue: n > 0}
	}
	if m.Burst <= 1 {
		burst = binomial(d.rng, n, d.badRate(m, arm))
	}
	if m.isGood() {
		return analysis.Counts{N: n, X: n - burst}
	}
	return analysis.Counts{N: n, X: burst}
}

func (d *Stream) sum(m *Metric, arm Arm, n float64) float64 {
	if len(m.Ratings) > 0 {
		return sumOfRatings(d.rng, m.Ratings, n, m.Base, d.factor(m, arm))
	}
	return sumOf(d.rng, m.Shape, n, m.Base*d.factor(m, arm), m.Spread)
}

// buckets puts n lognormal observations into a histogram.
func (d *Stream) buckets(i int, arm Arm, n float64) []float64 {
	m := &d.Metrics[i]
	bounds := m.bounds()
	out := make([]float64, len(bounds)+1)
	if n > 0 {
		median := m.Base * d.factor(m, arm) * (1 + quantileSwing*d.Diurnal*d.sin)
		told := &d.told[0][i]
		if arm == Canary {
			told = &d.told[1][i]
		}
		multinomial(d.rng, n, told.below(bounds, median, m.Spread), out)
	}
	return out
}

// below are the cumulated shares below bounds, and 1, of lognormal observations, found anew when the median changes.
func (s *shares) below(bounds []float64, median, sigma float64) []float64 {
	if s.median == median {
		return s.cdf
	}
	s.median, s.cdf = median, s.cdf[:0]
	for _, b := range bounds {
		s.cdf = append(s.cdf, normalCDF(math.Log(b/median)/sigma))
	}
	s.cdf = append(s.cdf, 1)
	return s.cdf
}

// normalCDF is the standard normal distribution, cut off where it is below what a float64 near 1 can tell.
func normalCDF(z float64) float64 {
	const far = 8.3
	switch {
	case z < -far:
		return 0
	case z > far:
		return 1
	}
	return math.Erfc(-z/math.Sqrt2) / 2
}

// badRate is the rate of bad events of a ratio or count at a time, at most 1.
func (d *Stream) badRate(m *Metric, arm Arm) float64 {
	rate, swing := m.Base, errorSwing
	if m.isGood() {
		rate, swing = 1-m.Base, failureSwing
	}
	return min(1, rate*d.factor(m, arm)*(1+swing*d.Diurnal*d.sin))
}

// factor is what befalls a metric of a version at a time.
func (d *Stream) factor(m *Metric, arm Arm) float64 {
	f := 1.0
	if arm == Canary {
		for _, r := range d.Regressions {
			if r.Metric == m.Name && d.at >= r.From {
				f *= r.Factor
			}
		}
	}
	for _, i := range d.Incidents {
		if i.Metric == m.Name && (i.Arm == arm || i.Arm == Both) && d.at >= i.From && d.at < i.To {
			f *= i.Factor
		}
	}
	return f
}

// isGood reports whether the events that are counted are good ones.
func (m *Metric) isGood() bool { return m.Kind == analysis.Ratio && m.Better == analysis.Higher }

func (m *Metric) bounds() []float64 {
	if len(m.Bounds) > 0 {
		return m.Bounds
	}
	return coarse
}

// coarse is not written to.
var coarse = CoarseBounds()
