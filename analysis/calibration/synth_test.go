package calibration

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

var began = time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)

// synth is a made-up history of one version.
type synth struct {
	seed    uint64
	days    float64
	step    time.Duration
	rps     float64 // of all units together
	diurnal float64 // swing of traffic and error rates over the day, 0 to 1
	by      By
	units   int
	spread  float64 // standard deviation of the logarithm of units' own error rates
	errors  float64 // per request
	burst   float64 // mean size of geometric bursts of errors; 0 is none
	scatter bool    // every burst is spread over all units
	bounds  []float64
	metrics []string
}

// history draws it.
func (s synth) history() *History {
	rng := rand.New(rand.NewPCG(s.seed, 7))
	if s.metrics == nil {
		s.metrics = []string{"error_rate"}
	}
	var metrics []analysis.Metric
	for _, name := range s.metrics {
		m, ok := analysis.Preset(name)
		if !ok {
			panic(name)
		}
		metrics = append(metrics, m)
	}
	s.units = max(1, s.units)
	if s.by == "" {
		s.by = Whole
	}
	length := time.Duration(s.days * 24 * float64(time.Hour))
	b := NewBuilder(metrics, began, began.Add(length), s.step, s.by)
	levels := make([]float64, s.units)
	for i := range levels {
		levels[i] = math.Exp(s.spread*rng.NormFloat64() - s.spread*s.spread/2)
	}
	for at := s.step; at <= length; at += s.step {
		swing := 1 + s.diurnal*math.Sin(2*math.Pi*at.Hours()/24)
		scattered := make([]float64, s.units)
		if s.scatter {
			for range int(s.events(s.rps*s.step.Seconds(), s.errors, rng)) {
				scattered[rng.IntN(s.units)]++
			}
		}
		for i := range levels {
			name := fmt.Sprintf("unit-%d", i)
			n := distuv.Poisson{Lambda: s.rps * swing * s.step.Seconds() / float64(s.units), Src: rng}.Rand()
			b.Add(began.Add(at), name, analysis.TotalRequests, n, n)
			for _, m := range metrics {
				if s.scatter {
					b.Add(began.Add(at), name, m.Name, n, scattered[i])
					continue
				}
				s.add(b, began.Add(at), name, m, n, s.errors*swing*levels[i], rng)
			}
		}
	}
	return b.History()
}

func (s synth) add(b *Builder, at time.Time, unit string, m analysis.Metric, n, rate float64, rng *rand.Rand) {
	switch m.Kind {
	case analysis.Quantile: // lognormal with a median of 2 s
		counts := make([]float64, len(s.bounds)+1)
		for range int(n) {
			v := 2 * math.Exp(0.8*rng.NormFloat64())
			i := 0
			for i < len(s.bounds) && v > s.bounds[i] {
				i++
			}
			counts[i]++
		}
		upTo := 0.0
		for i, bound := range append(s.bounds[:len(s.bounds):len(s.bounds)], inf) {
			upTo += counts[i]
			b.AddBucket(at, unit, m.Name, bound, upTo)
		}
	case analysis.Mean: // exponential with a mean of 0.04
		x := 0.0
		if n > 0 {
			x = distuv.Gamma{Alpha: n, Beta: 1 / 0.04, Src: rng}.Rand()
		}
		b.Add(at, unit, m.Name, n, x)
	default:
		x := s.events(n, rate, rng)
		if m.Better == analysis.Higher {
			x = n - x
		}
		b.Add(at, unit, m.Name, n, x)
	}
}

// events are bad trials, alone or in bursts.
func (s synth) events(n, rate float64, rng *rand.Rand) float64 {
	if s.burst <= 1 {
		return distuv.Binomial{N: n, P: min(1, rate), Src: rng}.Rand()
	}
	x := 0.0
	for range int(distuv.Poisson{Lambda: n * rate / s.burst, Src: rng}.Rand()) {
		x++
		for rng.Float64() >= 1/s.burst {
			x++
		}
	}
	return x // may exceed the trials of a short poll, as retries do
}

// fine are bounds with a factor of 1.09.
func fine() []float64 {
	var out []float64
	for b := 0.2; b < 60; b *= 1.09 {
		out = append(out, b)
	}
	return out
}
