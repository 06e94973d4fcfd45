package plan

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// ErrNoTraffic is the error for polls without a request.
var ErrNoTraffic = errors.New("there was no traffic")

// Measure is the traffic that polls of so long in all saw, and what is to be known of it. Traffic is that of both versions, the metrics are stable's.
// What was not seen is assumed: see DefaultBase. Errors: ErrNoTraffic, or a time that is not above 0.
func Measure(metrics []analysis.Metric, polls []analysis.Poll, window time.Duration) (Traffic, []string, error) {
	if window <= 0 {
		return Traffic{}, nil, fmt.Errorf("a window of %s: want a time above 0", window)
	}
	requests := 0.0
	for _, p := range polls {
		requests += p.Requests.Stable + p.Requests.Canary
	}
	if !(requests > 0) {
		return Traffic{}, nil, ErrNoTraffic
	}
	t := Traffic{RPS: requests / window.Seconds(), Metrics: map[string]Base{}}
	var notes []string
	for _, m := range metrics {
		if m.Kind == analysis.Value || m.Name == analysis.TotalRequests {
			continue
		}
		s := seenOf(m, polls)
		base, note := s.base(requests)
		if note != "" {
			notes = append(notes, m.Name+": "+note)
		}
		t.Metrics[m.Name] = base
	}
	return t, notes, nil
}

// seen is what polls saw of stable in a metric.
type seen struct {
	analysis.Metric
	n, x    float64
	stable  float64 // requests
	bounds  []float64
	buckets []float64
	spread  float64 // variance of one observation, times terms
	terms   float64
}

func seenOf(m analysis.Metric, polls []analysis.Poll) seen {
	s := seen{Metric: m}
	lastN, lastMean := 0.0, 0.0
	for _, p := range polls {
		s.stable += p.Requests.Stable
		sample := p.Samples[m.Name]
		c := sample.Stable
		if m.Kind == analysis.Quantile {
			s.addBuckets(sample)
			continue
		}
		s.n, s.x = s.n+c.N, s.x+c.X
		if c.N > 0 { // von Neumann: successive differences, so that drift does not count
			mean := c.X / c.N
			if lastN > 0 {
				s.spread += (mean - lastMean) * (mean - lastMean) / (1/c.N + 1/lastN)
				s.terms++
			}
			lastN, lastMean = c.N, mean
		}
	}
	return s
}

// addBuckets adds a histogram. Other bounds than before begin anew.
func (s *seen) addBuckets(sample analysis.Sample) {
	buckets := sample.Stable.Buckets
	if len(buckets) != len(sample.Bounds)+1 || len(sample.Bounds) == 0 {
		return
	}
	if !slices.Equal(s.bounds, sample.Bounds) {
		s.bounds, s.buckets, s.n = sample.Bounds, make([]float64, len(buckets)), 0
	}
	for i, b := range buckets {
		s.buckets[i] += b
		s.n += b
	}
}

const (
	fewEvents   = 10  // below which a rate is hardly known
	fewTerms    = 5   // below which a variance is not
	fewObserved = 200 // below which a quantile is not
)

// base is what was seen, and what to say of it.
func (s *seen) base(requests float64) (Base, string) {
	b := DefaultBase(s.Metric)
	if s.n <= 0 {
		return b, "the source has no numbers of it"
	}
	b.Assumed = false
	if s.stable <= 0 {
		s.stable = requests
	}
	b.Share = min(mostShare, s.n/s.stable)
	note := ""
	switch s.Kind {
	case analysis.Mean:
		b.Value = s.x / s.n
		if s.terms >= fewTerms && b.Value > 0 && s.spread > 0 {
			b.Spread = min(mostSpread, math.Sqrt(s.spread/s.terms)/b.Value)
		} else {
			note = "too few polls to tell how it varies, which is assumed"
		}
		if !(b.Value > 0) {
			b = DefaultBase(s.Metric)
			note = "its mean is not above 0, so it is assumed"
		}
	case analysis.Quantile:
		note = s.quantiles(&b)
	default:
		if s.Kind == analysis.Count && s.x <= 0 { // not that there never are any
			b.Assumed = true
			return b, fmt.Sprintf("none in %.0f requests, which does not say how rare they are", s.n)
		}
		b.Value = s.x / s.n
		if s.Kind == analysis.Ratio {
			b.Value = min(1, b.Value)
		}
		if rare := min(s.x, max(0, s.n-s.x)); s.Kind == analysis.Ratio && rare < fewEvents {
			note = fmt.Sprintf("only %.0f of the rarer events in %.0f trials, so its rate is rough", rare, s.n)
		}
	}
	return b, note
}

// quantiles finds the quantile, and the spread from one on its other side.
func (s *seen) quantiles(b *Base) string {
	at, width := s.quantile(s.Quantile)
	if math.IsNaN(at) || s.n < fewObserved {
		*b = DefaultBase(s.Metric)
		return fmt.Sprintf("its quantile can't be told from %.0f observations, so it is assumed", s.n)
	}
	b.Value, b.Width = at, min(mostSpread, width)
	other := 0.5
	if math.Abs(s.Quantile-0.5) < 0.2 {
		other = 0.9
	}
	far, _ := s.quantile(other)
	z := distuv.UnitNormal.Quantile(s.Quantile) - distuv.UnitNormal.Quantile(other)
	if sigma := math.Log(at/far) / z; sigma > 0.01 && sigma < mostSpread {
		b.Spread = sigma
		return ""
	}
	return "too few buckets to tell how it varies, which is assumed"
}

// quantile is one of the histogram, interpolated, and the width of its bucket relative to the bucket's lower bound; NaN above all bounds.
func (s *seen) quantile(q float64) (at, width float64) {
	below := 0.0
	for i, n := range s.buckets[:len(s.bounds)] {
		if n > 0 && below+n >= q*s.n {
			low, high := 0.0, s.bounds[i]
			if i > 0 {
				low = s.bounds[i-1]
			}
			at = low + (high-low)*(q*s.n-below)/n
			if low <= 0 {
				return at, 1
			}
			return at, high/low - 1
		}
		below += n
	}
	return math.NaN(), math.NaN()
}
