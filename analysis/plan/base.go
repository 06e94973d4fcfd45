package plan

import (
	"fmt"
	"math"

	"github.com/aviary-rollouts/aviary/analysis"
)

// Base is what stable does in one metric.
type Base struct {
	// Value is the metric's: events per trial of a ratio or count, the mean, or the quantile. NaN where it is not known, which only
	// limits on a change of a mean or quantile can do without.
	Value float64 `json:"value"`
	// Spread is the coefficient of variation of a mean's observations, or the standard deviation of the logarithm of a quantile's.
	Spread float64 `json:"spread,omitempty"`
	// Share is how many trials or observations there are per request, above 0; 0 for 1.
	Share float64 `json:"share,omitempty"`
	// Width is that of the histogram's buckets around a quantile, relative to their lower bound, 0 or more.
	Width float64 `json:"bucket_width,omitempty"`
	// Assumed is whether nobody said so: see DefaultBase.
	Assumed bool `json:"assumed,omitempty"`
}

func (b Base) share() float64 {
	if b.Share <= 0 {
		return 1
	}
	return b.Share
}

// What is assumed of an agent where nothing is known.
const (
	assumedErrors       = 0.01
	assumedToolErrors   = 0.02
	assumedSuccess      = 0.90
	assumedCounts       = 0.001
	assumedAmounts      = 1.4  // coefficient of variation of costs and the like
	assumedTokens       = 1.0  // of tokens
	assumedRating       = 4.0  // of 1 to 5
	assumedRatings      = 0.29 // their coefficient of variation
	assumedRatingsShare = 0.1  // of requests that are rated
	assumedLatency      = 0.8  // standard deviation of the logarithm of a duration
	assumedWidth        = 0.09 // of the buckets of Aviary's own gateway
)

// DefaultBase is what is assumed of a metric where nothing is known: 1 % errors, 2 % of tool calls, 90 % success, a lognormal duration with a σ of 0.8, costs
// that vary by 140 % and tokens by 100 %, ratings around 4 from a tenth of the users. Values of means and quantiles are not known.
func DefaultBase(m analysis.Metric) Base {
	b := Base{Value: math.NaN(), Assumed: true}
	switch m.Kind {
	case analysis.Ratio:
		b.Value = assumedErrors
		if m.Better == analysis.Higher {
			b.Value = assumedSuccess
		} else if m.Name == "tool_error_rate" {
			b.Value = assumedToolErrors
		}
	case analysis.Count:
		b.Value = assumedCounts
	case analysis.Quantile:
		b.Spread, b.Width = assumedLatency, assumedWidth
	case analysis.Mean:
		b.Spread = assumedAmounts
		switch m.Name {
		case "user_satisfaction":
			b.Value, b.Spread, b.Share = assumedRating, assumedRatings, assumedRatingsShare
		case "tokens_per_task":
			b.Spread = assumedTokens
		}
	}
	return b
}

// Bounds on what a plan is made for. More is a mistake.
const (
	mostSpread = 100
	mostShare  = 1000
	mostRPS    = 1e9
)

// Validate says what is wrong with what is said of a metric, and what is allowed.
func (b Base) Validate(m analysis.Metric) error {
	within := func(x, least, most float64) bool { return x >= least && x <= most } // false for NaN
	known := !math.IsNaN(b.Value)
	switch {
	case math.IsInf(b.Value, 0):
		return fmt.Errorf("%s %g: want a finite number", m.Name, b.Value)
	case m.Kind == analysis.Ratio && !within(b.Value, 0, 1):
		return fmt.Errorf("%s %g: want a fraction from 0 to 1: 0.02 is 2 %%", m.Name, b.Value)
	case m.Kind == analysis.Count && !within(b.Value, 0, mostShare):
		return fmt.Errorf("%s %g: want events per request, from 0 to %d", m.Name, b.Value, mostShare)
	case known && (m.Kind == analysis.Mean || m.Kind == analysis.Quantile) && !(b.Value > 0):
		return fmt.Errorf("%s %g: want a number above 0", m.Name, b.Value)
	case !within(b.Spread, 0, mostSpread):
		return fmt.Errorf("spread of %s %g: want a number from 0 to %d", m.Name, b.Spread, mostSpread)
	case (m.Kind == analysis.Mean || m.Kind == analysis.Quantile) && b.Spread == 0:
		return fmt.Errorf("spread of %s: want a number above 0: observations that are all the same need no statistics", m.Name)
	case b.Share != 0 && !within(b.Share, 1e-9, mostShare):
		return fmt.Errorf("share of %s %g: want trials per request, above 0 and up to %d", m.Name, b.Share, mostShare)
	case !within(b.Width, 0, mostSpread):
		return fmt.Errorf("bucket width of %s %g: want a number from 0 to %d", m.Name, b.Width, mostSpread)
	}
	return nil
}
