package trials

import (
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// window adds up polls, as a counter's increase over a time does.
type window struct {
	limits   []limit
	metrics  []analysis.Metric
	stable   []analysis.Counts
	canary   []analysis.Counts
	bounds   [][]float64
	requests analysis.Requests
}

func newWindow(limits []limit) *window {
	w := &window{limits: limits}
	for _, l := range limits {
		m, _ := analysis.Preset(l.metric)
		w.metrics = append(w.metrics, m)
	}
	w.stable, w.canary = make([]analysis.Counts, len(limits)), make([]analysis.Counts, len(limits))
	w.bounds = make([][]float64, len(limits))
	return w
}

func (w *window) add(p analysis.Poll) {
	w.requests.Stable += p.Requests.Stable
	w.requests.Canary += p.Requests.Canary
	for i, l := range w.limits {
		s, there := p.Samples[l.metric]
		if !there {
			continue
		}
		w.bounds[i] = s.Bounds
		accumulate(&w.stable[i], s.Stable)
		accumulate(&w.canary[i], s.Canary)
	}
}

func accumulate(sum *analysis.Counts, c analysis.Counts) {
	sum.N += c.N
	sum.X += c.X
	if len(sum.Buckets) < len(c.Buckets) {
		sum.Buckets = make([]float64, len(c.Buckets))
	}
	for i, b := range c.Buckets {
		sum.Buckets[i] += b
	}
}

func (w *window) clear() {
	w.requests = analysis.Requests{}
	for i := range w.limits {
		for _, c := range []*analysis.Counts{&w.stable[i], &w.canary[i]} {
			c.N, c.X = 0, 0
			clear(c.Buckets)
		}
	}
}

// values are a metric's values of both versions, and whether both have one.
func (w *window) values(i int) (stable, canary float64, ok bool) {
	s, c := w.stable[i], w.canary[i]
	if s.N <= 0 || c.N <= 0 {
		return 0, 0, false
	}
	if m := w.metrics[i]; m.Kind == analysis.Quantile {
		return quantile(w.bounds[i], s, m.Quantile), quantile(w.bounds[i], c, m.Quantile), true
	}
	return s.X / s.N, c.X / c.N, true
}

// quantile interpolates within a bucket, as Prometheus does: the last bound where it is above all of them.
func quantile(bounds []float64, c analysis.Counts, q float64) float64 {
	rank, below, low := q*c.N, 0.0, 0.0
	for i, high := range bounds {
		if n := c.Buckets[i]; n > 0 && below+n >= rank {
			return low + (high-low)*(rank-below)/n
		}
		below += c.Buckets[i]
		low = high
	}
	return low
}

// isBeyond is the raw rule: the canary's value against stable's and the limit, chance or not.
func (w *window) isBeyond(i int) bool {
	stable, canary, ok := w.values(i)
	if !ok {
		return false
	}
	if w.metrics[i].Better == analysis.Higher {
		return canary < (1-w.limits[i].worse)*stable
	}
	return canary > (1+w.limits[i].worse)*stable
}

func (w *window) anyBeyond() bool {
	for i := range w.limits {
		if w.isBeyond(i) {
			return true
		}
	}
	return false
}

// eachPoll compares what was counted since the start with the limits, at every poll from a least number of canary requests on.
type eachPoll struct {
	*window
	least float64
}

// Poll rolls back on any value beyond its limit.
func (r *eachPoll) Poll(p analysis.Poll, _ int, _ time.Duration) bool {
	r.add(p)
	return r.requests.Canary >= r.least && r.anyBeyond()
}

// atEnd compares once, at the end of a window.
type atEnd struct {
	*window
	end time.Duration
}

// Poll rolls back at the end on any value beyond its limit.
func (r *atEnd) Poll(p analysis.Poll, _ int, at time.Duration) bool {
	if at > r.end {
		return false
	}
	r.add(p)
	return at == r.end && r.anyBeyond()
}

// failedChecks looks at the last interval alone, and counts the intervals with any value beyond its limit over the whole rollout: as Flagger's
// analysis does with its interval and threshold.
type failedChecks struct {
	*window
	every     time.Duration
	threshold int
	failed    int
}

// Poll rolls back when the threshold is reached.
func (r *failedChecks) Poll(p analysis.Poll, _ int, at time.Duration) bool {
	r.add(p)
	if at%r.every != 0 {
		return false
	}
	if r.anyBeyond() {
		r.failed++
	}
	r.clear()
	return r.failed >= r.threshold
}

// failureLimit looks at the last interval alone, and counts failed measurements of each metric: as an analysis run of Argo Rollouts does with
// its interval and failureLimit.
type failureLimit struct {
	*window
	every  time.Duration
	limit  int
	failed []int
}

func newFailureLimit(limits []limit) *failureLimit {
	return &failureLimit{window: newWindow(limits), every: 5 * time.Minute, limit: 3, failed: make([]int, len(limits))}
}

// Poll rolls back when a metric failed more often than its limit.
func (r *failureLimit) Poll(p analysis.Poll, _ int, at time.Duration) bool {
	r.add(p)
	if at%r.every != 0 {
		return false
	}
	over := false
	for i := range r.limits {
		if r.isBeyond(i) {
			r.failed[i]++
		}
		over = over || r.failed[i] > r.limit
	}
	r.clear()
	return over
}
