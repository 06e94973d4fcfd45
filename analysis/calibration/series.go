package calibration

import (
	"math"

	"github.com/aviary-rollouts/aviary/analysis"
)

var inf = math.Inf(1)

// series is one metric of one unit as the tests see it: trials and bad events per poll, or observations and their sum.
type series struct{ n, x []float64 }

// series are a metric's numbers by unit. Of a ratio where higher is better the failures are what is counted; of a quantile it is the
// observations above the running threshold, which is of the polls before, as in the rollout. Polls
// that would have been frozen are empty.
func (h *History) series(metric int) []series {
	m := h.Metrics[metric]
	out := make([]series, len(h.Units))
	var at []float64
	if m.Kind == analysis.Quantile {
		at = h.thresholds(metric)
	}
	for i := range h.Units {
		c := &h.Units[i].Metrics[metric]
		s := series{n: make([]float64, h.Polls), x: make([]float64, h.Polls)}
		for p := range h.Polls {
			if h.frozen != nil && h.frozen[p] {
				continue
			}
			s.n[p], s.x[p] = c.N.At(p), c.X.At(p)
			switch {
			case m.Kind == analysis.Quantile:
				s.n[p], s.x[p] = c.exceed(p, at[p])
			case m.Kind == analysis.Ratio && m.Better == analysis.Higher:
				s.x[p] = max(0, s.n[p]-s.x[p])
			}
		}
		out[i] = s
	}
	return out
}

// together adds the units up.
func together(units []series) series {
	if len(units) == 1 {
		return units[0]
	}
	out := series{n: make([]float64, len(units[0].n)), x: make([]float64, len(units[0].x))}
	for _, u := range units {
		for p := range u.n {
			out.n[p] += u.n[p]
			out.x[p] += u.x[p]
		}
	}
	return out
}

// referenceBlock is over how many polls a running threshold is taken: that many to twice as many.
const referenceBlock = 500

// thresholds is a quantile's threshold at each poll; NaN while too little was seen.
func (h *History) thresholds(metric int) []float64 {
	m := h.Metrics[metric]
	out := make([]float64, h.Polls)
	var before, now []float64
	var bounds []float64
	for _, u := range h.Units {
		if b := u.Metrics[metric].Bounds; len(b) > 0 {
			bounds, before, now = b, make([]float64, len(b)+1), make([]float64, len(b)+1)
		}
	}
	all := make([]float64, len(now))
	at := math.NaN()
	for p := range out {
		if p%referenceBlock == 0 && p > 0 {
			before, now = now, before
			clear(now)
		}
		if p%10 == 0 && len(bounds) > 0 { // it moves slowly
			n := 0.0
			for i := range all {
				all[i] = before[i] + now[i]
				n += all[i]
			}
			if n >= max(100, 10/min(m.Quantile, 1-m.Quantile)) {
				at = quantile(bounds, all, m.Quantile)
			}
		}
		out[p] = at
		for _, u := range h.Units {
			for i := range u.Metrics[metric].Buckets {
				now[i] += u.Metrics[metric].Buckets[i].At(p)
			}
		}
	}
	return out
}

// exceed is a poll's observations and those above a threshold, interpolated within the bucket that it cuts.
func (c *Counted) exceed(poll int, at float64) (n, x float64) {
	if math.IsNaN(at) {
		return 0, 0
	}
	low := 0.0
	for i := range c.Buckets {
		k := c.Buckets[i].At(poll)
		n += k
		switch {
		case i == len(c.Bounds) || at <= low:
			x += k
		case at < c.Bounds[i]:
			x += k * (c.Bounds[i] - at) / (c.Bounds[i] - low)
		}
		if i < len(c.Bounds) {
			low = c.Bounds[i]
		}
	}
	return n, x
}

// quantile is the q-quantile of buckets, interpolated within its bucket; the last bound when it lies above all of them, NaN without
// observations.
func quantile(bounds, buckets []float64, q float64) float64 {
	n := 0.0
	for _, k := range buckets {
		n += k
	}
	if n <= 0 {
		return math.NaN()
	}
	rank, below, low := q*n, 0.0, 0.0
	for i, high := range bounds {
		if k := buckets[i]; k > 0 && below+k >= rank {
			return low + (high-low)*(rank-below)/k
		}
		below += buckets[i]
		low = high
	}
	return bounds[len(bounds)-1]
}
