package calibration

import (
	"math"
	"slices"
	"strconv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// Coarse is a histogram whose buckets are too wide where a check looks.
type Coarse struct {
	Metric string    `json:"metric"`
	At     float64   `json:"at"`           // a value that matters: the quantile, or the limit on it
	Low    float64   `json:"bucket_from"`  // of the bucket that holds it
	High   *float64  `json:"bucket_to"`    // nil: the bucket beyond all bounds
	Width  *float64  `json:"width"`        // relative to Low; nil where Low is 0 or there is no upper bound
	Want   float64   `json:"width_wanted"` // a third of the change that is allowed
	Add    []float64 `json:"add"`          // bounds to add
}

// finest is the smallest width that is asked for: finer buckets cost more than they tell.
const finest = 0.01

// buckets looks at the buckets around every quantile and its limit.
func (c *calibration) buckets() {
	for i, m := range c.History.Metrics {
		bounds, all := c.histogram(i)
		limit := c.rollout.tightest(m, c.base(i)) - 1
		if m.Kind != analysis.Quantile || len(bounds) == 0 || !(limit > 0) || math.IsInf(limit, 1) {
			continue
		}
		q := quantile(bounds, all, m.Quantile)
		want := max(finest, limit/3)
		for _, at := range []float64{q, q * (1 + limit)} {
			if coarse, ok := lookAt(bounds, at, want); ok {
				coarse.Metric = m.Name
				if n := len(c.out.Buckets); n > 0 && c.out.Buckets[n-1].Metric == m.Name && c.out.Buckets[n-1].Low == coarse.Low {
					continue // the same bucket holds both
				}
				c.out.Buckets = append(c.out.Buckets, coarse)
			}
		}
	}
}

// lookAt is the bucket that holds a value, if it is wider than wanted.
func lookAt(bounds []float64, at, want float64) (Coarse, bool) {
	i, _ := slices.BinarySearch(bounds, at)
	out := Coarse{At: at, Want: want}
	if i > 0 {
		out.Low = bounds[i-1]
	}
	from, to := out.Low, at*(1+want)
	if i < len(bounds) {
		out.High, to = &bounds[i], bounds[i]
	}
	if from <= 0 {
		from = at / (1 + want)
	} else if i < len(bounds) {
		out.Width = known(bounds[i]/out.Low - 1)
		if *out.Width <= want {
			return out, false
		}
	}
	// Equal steps on a logarithmic scale, none wider than wanted.
	steps := max(1, int(math.Ceil(math.Log(to/from)/math.Log1p(want))))
	for k := 0; k <= steps; k++ {
		b := rounded(from * math.Pow(to/from, float64(k)/float64(steps)))
		if _, there := slices.BinarySearch(bounds, b); !there && !slices.Contains(out.Add, b) {
			out.Add = append(out.Add, b)
		}
	}
	return out, len(out.Add) > 0
}

// rounded is a number with three digits that count.
func rounded(x float64) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(x, 'g', 3, 64), 64)
	if err != nil {
		return x
	}
	return r
}
