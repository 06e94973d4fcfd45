package calibration

import (
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// traffic is requests a second; peak and trough are of whole hours, or of polls where the history is shorter.
func (h *History) traffic() Traffic {
	hour := max(1, min(h.Polls, int(time.Hour/h.Step)))
	t := Traffic{Trough: inf}
	for from := 0; from+hour <= h.Polls; from += hour {
		rate := h.requests(from, from+hour) / (time.Duration(hour) * h.Step).Seconds()
		t.Peak, t.Trough = max(t.Peak, rate), min(t.Trough, rate)
	}
	t.Mean = h.requests(0, h.Polls) / h.Span().Seconds()
	return t
}

// base is a metric's value over the whole history.
func (h *History) base(metric int) float64 {
	m := h.Metrics[metric]
	if m.Kind != analysis.Quantile {
		t := h.total(metric)
		return ratio(t.X, t.N)
	}
	bounds, all := h.histogram(metric)
	return quantile(bounds, all, m.Quantile)
}

// deviation is how single observations of a mean or a quantile differ, and how wide the quantile's bucket is. That of a quantile is of a lognormal,
// by the distance between the quantile and the median.
func (h *History) deviation(metric int) (deviation, width *float64) {
	m := h.Metrics[metric]
	switch m.Kind {
	case analysis.Mean:
		return known(math.Sqrt(pollVariance(together(h.series(metric)))) / h.base(metric)), nil
	case analysis.Quantile:
		bounds, all := h.histogram(metric)
		at, from, z := quantile(bounds, all, m.Quantile), quantile(bounds, all, 0.5), distuv.UnitNormal.Quantile(m.Quantile)
		if m.Quantile == 0.5 {
			from, z = quantile(bounds, all, 0.16), -distuv.UnitNormal.Quantile(0.16)
		}
		if i, _ := slices.BinarySearch(bounds, at); i > 0 && i < len(bounds) {
			width = known(bounds[i]/bounds[i-1] - 1)
		}
		return known(math.Log(at/from) / z), width
	}
	return nil, nil
}

// histogram is all of a metric's observations.
func (h *History) histogram(metric int) (bounds, all []float64) {
	for i := range h.Units {
		c := &h.Units[i].Metrics[metric]
		if len(c.Bounds) > 0 && all == nil {
			bounds, all = c.Bounds, make([]float64, len(c.Buckets))
		}
		for b := range c.Buckets {
			all[b] += c.Buckets[b].sum(0, h.Polls)
		}
	}
	return bounds, all
}
