package calibration

import (
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/aviary-rollouts/aviary/analysis"
)

const (
	cohortHashes     = 200
	leastCohorts     = 20
	leastCohortEvent = 5.0 // events, or observations of a mean, in a cohort and outside: below, the logarithm says nothing
)

// cohortSpread is the standard deviation s_u of the logarithm of a metric's ratio between a cohort of users of the given share and the others,
// over re-hashed cohorts, without what sampling adds: φ·(1/x_c+1/x_s−1/n_c−1/n_s) for shares, the plug-in variance for means. Of quantiles,
// which have no totals by user, the history's groups of users are the cohorts. NaN where users are not known, or too few events were seen.
func (h *History) cohortSpread(metric int, share, phi float64) float64 {
	m := h.Metrics[metric]
	switch {
	case h.By != Users || m.Kind == analysis.Value:
		return math.NaN()
	case m.Kind == analysis.Quantile:
		return h.groupSpread(metric, share, phi)
	}
	variance := 0.0
	if m.Kind == analysis.Mean {
		variance = pollVariance(together(h.series(metric)))
	}
	names := slices.Sorted(maps.Keys(h.Users)) // for sums that do not depend on the order of a map
	sum, n := 0.0, 0
	for i := range cohortHashes {
		in, out := h.cohort(names, metric, share, strconv.Itoa(i))
		s, ok := squaredLog(m, in, out, variance, max(1, phi))
		if ok {
			sum += s
			n++
		}
	}
	if n < leastCohorts {
		return math.NaN()
	}
	return math.Sqrt(max(0, sum/float64(n)))
}

// cohort sums up the users that a salt puts in a cohort of a share of all users, and the others.
func (h *History) cohort(names []string, metric int, share float64, salt string) (in, out Total) {
	limit := uint64(share * (1 << 32))
	m := h.Metrics[metric]
	for _, name := range names {
		t := h.Users[name][metric]
		if m.Kind == analysis.Ratio && m.Better == analysis.Higher {
			t.X = max(0, t.N-t.X)
		}
		if spread(name, salt)>>32 < limit {
			in.N, in.X = in.N+t.N, in.X+t.X
		} else {
			out.N, out.X = out.N+t.N, out.X+t.X
		}
	}
	return in, out
}

// squaredLog is the squared logarithm of the ratio between two groups, less its sampling variance, and whether there is one.
func squaredLog(m analysis.Metric, in, out Total, variance, phi float64) (float64, bool) {
	if m.Kind == analysis.Mean {
		if min(in.N, out.N) < leastCohortEvent || in.X <= 0 || out.X <= 0 {
			return 0, false
		}
		a, b := in.X/in.N, out.X/out.N
		return square(math.Log(a/b)) - phi*variance*(1/(in.N*a*a)+1/(out.N*b*b)), true
	}
	if min(in.X, out.X) < leastCohortEvent {
		return 0, false
	}
	log := math.Log(in.X / in.N * out.N / out.X)
	return square(log) - phi*max(0, 1/in.X+1/out.X-1/in.N-1/out.N), true
}

func square(x float64) float64 { return x * x }

// groupSpread is cohortSpread of a quantile. The variance of the logarithm of a group's quantile over that of all, less that of sampling,
// φ·q(1−q)/(n·f²t²) for the density f at the quantile t, is s²·(1−g)/g for groups of a share g of the users; a cohort of a share w has
// s²/(w(1−w)) against the others, with s² that of one such share.
func (h *History) groupSpread(metric int, share, phi float64) float64 {
	q := h.Metrics[metric].Quantile
	bounds, all := h.histogram(metric)
	t := quantile(bounds, all, q)
	density := densityAt(bounds, all, t)
	if !(density > 0) || t >= bounds[len(bounds)-1] {
		return math.NaN()
	}
	whole, sum, groups := total(all), 0.0, 0
	for i := range h.Units {
		own := make([]float64, len(all))
		for b := range h.Units[i].Metrics[metric].Buckets {
			own[b] = h.Units[i].Metrics[metric].Buckets[b].sum(0, h.Polls)
		}
		n := total(own)
		if n*(1-q) < leastCohortEvent || n*q < leastCohortEvent {
			continue
		}
		g := n / whole
		log := math.Log(quantile(bounds, own, q) / t)
		// Of the whole, the group is a part: its own share of the noise is not noise against it.
		sampling := max(1, phi) * q * (1 - q) / (n * square(density*t)) * (1 - g)
		sum += (square(log) - sampling) * g / (1 - g)
		groups++
	}
	if groups < leastCohorts {
		return math.NaN()
	}
	return math.Sqrt(max(0, sum/float64(groups)) / (share * (1 - share)))
}

// densityAt is the density of a histogram at a value, in the bucket that holds it; 0 beyond all bounds.
func densityAt(bounds, buckets []float64, at float64) float64 {
	n, low := total(buckets), 0.0
	for i, high := range bounds {
		if at <= high {
			return ratio(buckets[i], n*(high-low))
		}
		low = high
	}
	return 0
}
