// Package world makes up the traffic of an agent whose two versions behave as told, poll by poll, so that rules can be judged where the
// truth is known.
package world

import (
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// World is an agent under made-up traffic. It holds no state: polls may be drawn from several goroutines at once, each with its own
// random numbers.
type World struct {
	// RPS is how many requests a second both versions get together, above 0: the day's mean.
	RPS float64
	// Diurnal is the amplitude of the day's swing of traffic as a share of its mean, from 0 to 1. Time 0 is the middle of the rise, and it moves once a minute. Error
	// rates swing with it by 0.8 of that share, failures of what should succeed by 0.4, quantiles by 0.3, means not at all.
	Diurnal float64
	// Metrics are what is measured.
	Metrics []Metric
	// Regressions are what the canary does worse, or better.
	Regressions []Regression
	// Incidents befall one version or both for a time.
	Incidents []Incident
}

// Metric is something measured, and how it comes about.
type Metric struct {
	analysis.Metric
	// Base is the rate per trial of a ratio or a count in [0,1], the mean of a mean, the median of a quantile's lognormal observations in
	// seconds, and the number of a plain value.
	Base float64
	// Spread is the coefficient of variation of a mean's observations or of a plain value, and sigma of a quantile's lognormal.
	Spread float64
	// Share is the share of requests that report the metric, in (0,1]. 0 is all.
	Share float64
	// Burst is the mean size of geometric bursts of bad events, at least 1. 0 is none, as 1. A burst is one request that is retried: its
	// retries are requests too.
	Burst float64
	// Shape is how a mean's observations are distributed. It is Gamma where empty.
	Shape Shape
	// Ratings are the shares of the ratings 1, 2, 3 and so on, which sum to 1, of a mean that is a rating. They take the place of Shape and
	// Spread, and Base has to be their mean.
	Ratings []float64
	// Bounds are the upper bounds of a quantile's buckets, rising. They are CoarseBounds where empty.
	Bounds []float64
}

// Shape is a distribution of amounts.
type Shape string

// The shapes.
const (
	Gamma     Shape = "gamma"
	Lognormal Shape = "lognormal" // with a heavy tail
)

// Regression is a change of the canary. Its failures (of a ratio or count that should be low: events; of a ratio that should be high: trials
// without the event), its mean, quantile or value are Factor times the base from From on. Shares are capped at 1.
type Regression struct {
	Metric string
	Factor float64       // 0 or more
	From   time.Duration // since the start
}

// Arm says which versions an incident befalls.
type Arm string

// The arms.
const (
	Canary Arm = "canary"
	Stable Arm = "stable"
	Both   Arm = "both"
)

// Incident is a change of one version or both for a time, From ≤ t < To, measured as that of a [Regression].
type Incident struct {
	Arm      Arm
	Metric   string
	Factor   float64 // 0 or more
	From, To time.Duration
}

const day = 24 * time.Hour

// CoarseBounds are upper bounds of buckets in seconds as services have them that answer within seconds: they are 25 to 100 % apart.
func CoarseBounds() []float64 {
	return []float64{0.5, 1, 2, 3, 4, 5, 6, 8, 10, 12.5, 15, 20, 30, 60, 120}
}

// FineBounds are upper bounds from 0.05 to about 300 s that are 9 % apart, as those of histograms with exponential buckets.
func FineBounds() []float64 {
	const factor = 1.09
	var out []float64
	for b := 0.05; b < 300; b *= factor {
		out = append(out, b)
	}
	return out
}

// Default is an agent with ten requests a second, 1 % errors, 90 % completed tasks, a lognormal latency with a median of 2 s, a cost of
// 0.04 per task that varies widely, and a rating from every tenth user.
func Default() World {
	return World{
		RPS: 10, Diurnal: 0.5,
		Metrics: []Metric{
			preset("error_rate", Metric{Base: 0.01}),
			preset("task_completion_rate", Metric{Base: 0.90}),
			preset("p95_latency", Metric{Base: 2, Spread: 0.8}),
			preset("cost_per_task", Metric{Base: 0.04, Spread: 1.41}),
			preset("user_satisfaction", Metric{Base: 3.98, Share: 0.1, Ratings: []float64{0.05, 0.07, 0.13, 0.35, 0.40}}),
		},
	}
}

func preset(name string, m Metric) Metric {
	m.Metric, _ = analysis.Preset(name)
	return m
}

// Metric is the metric of a name, or nil. It may be changed.
func (w *World) Metric(name string) *Metric {
	for i := range w.Metrics {
		if w.Metrics[i].Name == name {
			return &w.Metrics[i]
		}
	}
	return nil
}
