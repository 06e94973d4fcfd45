// Package analysis turns what two versions of an agent did into verdicts with their evidence. It is pure: numbers in, verdicts out.
package analysis

import (
	"math"
	"slices"
)

// Kind says how a metric is counted.
type Kind string

// The kinds.
const (
	Ratio    Kind = "ratio"    // the share of trials with an event, in [0,1]
	Count    Kind = "count"    // events that are counted, such as safety violations; relative to stable they are events per trial
	Mean     Kind = "mean"     // a sum over a number of observations
	Quantile Kind = "quantile" // a quantile of a histogram
	Value    Kind = "value"    // a number as it stands, by threshold only
)

// Better says in which direction a metric improves. It is empty for what is neither, such as total_requests.
type Better string

// The directions.
const (
	Lower  Better = "lower"
	Higher Better = "higher"
)

// Metric is something measured per version.
type Metric struct {
	Name     string  `json:"name"`
	Kind     Kind    `json:"kind"`
	Better   Better  `json:"better,omitempty"`
	Quantile float64 `json:"quantile,omitempty"` // in (0,1), of kind quantile
}

// TotalRequests is the metric that counts the canary's requests in a stage. It says how much was seen, never how good it was.
const TotalRequests = "total_requests"

// Presets are the metrics that every provider knows, in a fixed order.
func Presets() []Metric {
	return []Metric{
		{Name: TotalRequests, Kind: Count},
		{Name: "error_rate", Kind: Ratio, Better: Lower},
		{Name: "task_completion_rate", Kind: Ratio, Better: Higher},
		{Name: "p50_latency", Kind: Quantile, Better: Lower, Quantile: 0.50},
		{Name: "p95_latency", Kind: Quantile, Better: Lower, Quantile: 0.95},
		{Name: "p99_latency", Kind: Quantile, Better: Lower, Quantile: 0.99},
		{Name: "time_to_first_token", Kind: Quantile, Better: Lower, Quantile: 0.95},
		{Name: "safety_violations", Kind: Count, Better: Lower},
		{Name: "user_satisfaction", Kind: Mean, Better: Higher},
		{Name: "tokens_per_task", Kind: Mean, Better: Lower},
		{Name: "cost_per_task", Kind: Mean, Better: Lower},
		{Name: "tool_error_rate", Kind: Ratio, Better: Lower},
	}
}

// Preset is the preset metric of a name, and whether there is one.
func Preset(name string) (Metric, bool) {
	for _, m := range Presets() {
		if m.Name == name {
			return m, true
		}
	}
	return Metric{}, false
}

// Counts are one version's increments over one poll. All are finite and not negative, but Value.
type Counts struct {
	N        float64   // trials (ratio, count) or observations (mean)
	X        float64   // events among the trials, or the sum of the observations
	Buckets  []float64 // of kind quantile: observations per bucket, not cumulative; one more than Bounds, the last is above all of them
	Value    float64   // of kind value: as it is now
	HasValue bool      // there is a Value
}

// Sample is what one metric did over one poll.
type Sample struct {
	Stable, Canary Counts
	Bounds         []float64 // of kind quantile: upper bounds of the buckets, rising, finite
}

// Requests are the requests per version.
type Requests struct{ Stable, Canary float64 }

// Poll is what was counted between two moments.
type Poll struct {
	Number   int64 // rises by at least one per poll; a number that is not above the last one was seen before
	Weight   int   // the canary's share in force during the poll, in basis points
	Requests Requests
	Samples  map[string]Sample // by metric name

	// Conversations are those that began, where the source counts them: what the weight divides. Zero where it does not.
	Conversations Requests
	// Settling is whether the poll is of the time after a weight change that is left out of comparisons: rules on counted events see it, tests
	// and windows don't.
	Settling bool
}

// valid reports whether the increments can be counted: finite and not negative.
func (c Counts) valid() bool {
	if !countable(c.N) || !countable(c.X) || (c.HasValue && !finite(c.Value)) {
		return false
	}
	return !slices.ContainsFunc(c.Buckets, func(b float64) bool { return !countable(b) })
}

// validBounds reports whether bounds rise and are finite, and whether both versions have buckets for them or none at all.
func (s Sample) validBounds() bool {
	for i, b := range s.Bounds {
		if !finite(b) || (i > 0 && b <= s.Bounds[i-1]) {
			return false
		}
	}
	fits := func(buckets []float64) bool {
		return len(buckets) == 0 || (len(s.Bounds) > 0 && len(buckets) == len(s.Bounds)+1)
	}
	return fits(s.Stable.Buckets) && fits(s.Canary.Buckets)
}

func finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// amount reports whether x can be a sum of increments.
func amount(x float64) bool { return x >= 0 && finite(x) }

// mostCountable bounds an increment: above it, float64 no longer tells whole numbers apart.
const mostCountable = 1 << 53

func countable(x float64) bool { return x >= 0 && x <= mostCountable } // false for NaN
