package analysis

import "slices"

// quantile is the q-quantile of n observations in buckets, interpolated within its bucket as Prometheus does, and whether it is finite: in the bucket above
// all bounds, it is the last bound and false. It is 0 and false without observations.
func quantile(bounds, buckets []float64, n, q float64) (float64, bool) {
	if n <= 0 || len(bounds) == 0 {
		return 0, false
	}
	rank, below, low := q*n, 0.0, lowest(bounds)
	for i, high := range bounds {
		if c := buckets[i]; c > 0 && below+c >= rank {
			return low + (high-low)*(rank-below)/c, true
		}
		below += buckets[i]
		low = high
	}
	return bounds[len(bounds)-1], false
}

// lowest is the lower end of the first bucket: 0, unless it holds negative numbers.
func lowest(bounds []float64) float64 { return min(0, bounds[0]) }

// rounding says how observations in the bucket that a threshold cuts are counted.
type rounding int

const (
	interpolated rounding = iota
	up                    // all of them are above
	down                  // none of them is above
)

// tails are a histogram's observations, added up from the top: of bucket i and all above it, so that those above any threshold are found
// at once. It is empty without buckets.
type tails []float64

// tailsOf are those of buckets, in into's memory.
func tailsOf(buckets []float64, into tails) tails {
	into = append(into[:0], buckets...)
	for i := len(into) - 2; i >= 0; i-- {
		into[i] += into[i+1]
	}
	return into
}

// total is the number of observations.
func (ts tails) total() float64 {
	if len(ts) == 0 {
		return 0
	}
	return ts[0]
}

// above is the number of observations above t.
func (ts tails) above(bounds []float64, t float64, r rounding) float64 {
	if len(ts) == 0 {
		return 0
	}
	i, exact := slices.BinarySearch(bounds, t)
	switch {
	case exact:
		return ts[i+1]
	case i == len(bounds):
		return ts[i]
	}
	low := lowest(bounds)
	if i > 0 {
		low = bounds[i-1]
	}
	switch {
	case t <= low || r == up:
		return ts[i]
	case r == down:
		return ts[i+1]
	}
	return ts[i+1] + (ts[i]-ts[i+1])*(bounds[i]-t)/(bounds[i]-low)
}

func total(buckets []float64) float64 {
	n := 0.0
	for _, b := range buckets {
		n += b
	}
	return n
}

// addTo adds buckets to sum, which grows when it is empty.
func addTo(sum, buckets []float64) []float64 {
	if len(sum) == 0 {
		return append(sum, buckets...)
	}
	if len(buckets) == 0 {
		return sum
	}
	for i, b := range buckets {
		sum[i] += b
	}
	return sum
}

// reference is stable's recent histogram. It gives the threshold of a quantile test, which has to be fixed before the poll that it
// judges. It holds the block of polls that is being filled and the one before: an error in the threshold only shifts which quantile is
// compared, so it need not be newer than that.
type reference struct {
	before, now []float64
	polls       int // in now
}

const referenceBlock = 500 // polls

func (r *reference) add(buckets []float64) {
	if len(buckets) == 0 {
		return
	}
	if r.polls >= referenceBlock {
		r.before, r.now, r.polls = r.now, r.before[:0], 0
	}
	r.now = addTo(r.now, buckets)
	r.polls++
}

func (r *reference) clear() { r.before, r.now, r.polls = nil, nil, 0 }

// sameBounds reports whether two histograms have the same buckets.
func sameBounds(a, b []float64) bool { return slices.Equal(a, b) }
