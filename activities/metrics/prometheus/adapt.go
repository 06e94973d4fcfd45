package prometheus

import (
	"math"
	"slices"
	"strconv"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// samples sorts what was counted into the metrics of the request.
func (p *plan) samples(request metrics.Request, series []counted, values map[string]pair) metrics.Samples {
	byVersion := map[string][]counted{}
	for _, s := range series {
		version := string(s.labels[versionLabel])
		byVersion[version] = append(byVersion[version], s)
	}
	stable, canary := byVersion[request.Stable], byVersion[request.Canary]
	out := metrics.Samples{
		Requests: rollout.Requests{Stable: add(p.requests.events, stable), Canary: add(p.requests.events, canary)},
		Metrics:  map[string]analysis.Sample{},
	}
	if begun := (&selector{name: conversations}); has(begun, stable) && has(begun, canary) {
		out.Conversations = rollout.Requests{Stable: add(begun, stable), Canary: add(begun, canary)}
	}
	for name, places := range p.metrics {
		sample := analysis.Sample{Stable: places.counts(stable), Canary: places.counts(canary)}
		if places.histogram != nil {
			sample.Bounds = bounds(places.histogram, series)
			sample.Stable = histogram(places.histogram, stable, sample.Bounds)
			sample.Canary = histogram(places.histogram, canary, sample.Bounds)
		}
		if v := values[name].stable; v != nil {
			sample.Stable.Value, sample.Stable.HasValue = *v, true
		}
		if v := values[name].canary; v != nil {
			sample.Canary.Value, sample.Canary.HasValue = *v, true
		}
		out.Metrics[name] = sample
	}
	return out
}

func (p *places) counts(series []counted) analysis.Counts {
	switch {
	case p.events != nil:
		return analysis.Counts{N: add(p.trials, series), X: add(p.events, series)}
	case p.sum != nil:
		return analysis.Counts{N: add(p.count, series), X: add(p.sum, series)}
	}
	return analysis.Counts{}
}

// has reports whether s picks any series.
func has(s *selector, series []counted) bool {
	return slices.ContainsFunc(series, func(c counted) bool { return s.matches(c.labels) })
}

// add is what the picked series grew by together.
func add(s *selector, series []counted) float64 {
	total := 0.0
	for _, c := range series {
		if s.matches(c.labels) {
			total += c.increase
		}
	}
	return total
}

// bucketBound is the upper bound of a bucket's series, or NaN when it has none.
func bucketBound(c counted) float64 {
	le, err := strconv.ParseFloat(string(c.labels["le"]), 64)
	if err != nil {
		return math.NaN()
	}
	return le
}

// bounds are the finite upper bounds of all buckets that s picks, rising.
func bounds(s *selector, series []counted) []float64 {
	var out []float64
	for _, c := range series {
		if b := bucketBound(c); s.matches(c.labels) && !math.IsNaN(b) && !math.IsInf(b, 0) {
			out = append(out, b)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// histogram is the observations in each bucket: the series are cumulative over the buckets, the counts are not. A version
// without series has no buckets.
func histogram(s *selector, series []counted, bounds []float64) analysis.Counts {
	upTo := make([]float64, len(bounds)+1)
	found := false
	for _, c := range series {
		b := bucketBound(c)
		if !s.matches(c.labels) || math.IsNaN(b) {
			continue
		}
		i, _ := slices.BinarySearch(bounds, b) // beyond all for +Inf
		upTo[i] += c.increase
		found = true
	}
	if !found {
		return analysis.Counts{}
	}
	out := analysis.Counts{N: upTo[len(bounds)], Buckets: make([]float64, len(upTo))}
	below := 0.0
	for i, n := range upTo {
		out.Buckets[i] = max(0, n-below)
		below = max(below, n)
	}
	return out
}
