package calibration

import "time"

// Options of a calibration. The zero value is usable.
type Options struct {
	Replays  int       // pseudo-rollouts of identical versions; 0: 100, which is also the least
	Promises int       // pseudo-rollouts per injected regression; 0: 30
	Polls    int       // of one pseudo-rollout at most, neighbours are joined; 0: 2000
	Factors  []float64 // of the injected regressions, above 1; nil: 1.2, 1.5, 2, 5
	Seed     uint64    // the same seed gives the same answer
}

// Result is what a history says.
type Result struct {
	From      time.Time `json:"from"`
	Days      float64   `json:"days"`
	Step      float64   `json:"step_seconds"`
	By        By        `json:"units"`
	Units     int       `json:"unit_count"` // units, or users
	Traffic   Traffic   `json:"traffic"`
	Frozen    float64   `json:"frozen,omitempty"` // share of the time that freeze_when held; it is left out of φ
	Metrics   []Metric  `json:"metrics"`
	Replays   Replays   `json:"replays"`
	Tightness []Tight   `json:"limits,omitempty"`
	Promises  []Promise `json:"detection,omitempty"`
	Buckets   []Coarse  `json:"buckets,omitempty"`
	Warnings  []string  `json:"warnings,omitempty"`

	// Overdispersion and CohortSpread are what to set, by metric: φ above 1, and s_u above 0.
	Overdispersion map[string]float64 `json:"overdispersion,omitempty"`
	CohortSpread   map[string]float64 `json:"cohort_spread,omitempty"`
}

// Traffic is requests a second.
type Traffic struct {
	Mean   float64 `json:"mean"`
	Peak   float64 `json:"peak"`   // of the busiest hour
	Trough float64 `json:"trough"` // of the quietest
}

// Metric is what was learnt of one metric.
type Metric struct {
	Name   string   `json:"name"`
	Base   *float64 `json:"base"`   // the rate, mean or quantile; nil without data
	Trials float64  `json:"trials"` // or observations
	Share  float64  `json:"share"`  // trials per request
	// Deviation is the coefficient of variation of a mean's observations, or the standard deviation of the logarithm of a quantile's; nil of
	// others.
	Deviation *float64 `json:"deviation,omitempty"`
	// Width is that of the bucket that holds a quantile, relative to its lower bound; nil of others, and where there is no such bound.
	Width  *float64 `json:"bucket_width,omitempty"`
	Tested bool     `json:"tested"` // evidence is gathered on it: not only rules on counted events
	Phi    *float64 `json:"phi"`    // as measured; nil where it could not be
	Blocks []Spread `json:"blocks,omitempty"`
	Split  string   `json:"split,omitempty"`
	Used   float64  `json:"phi_used"`                // after the replays
	Cohort *float64 `json:"cohort_spread,omitempty"` // s_u; nil where it is not known
	// Fires is, for a rule on counted events, the chance that identical versions break it during the rollout.
	Fires *float64 `json:"fires,omitempty"`
}

// Replays is what the analysis made of identical versions.
type Replays struct {
	Count     int     `json:"count"`
	Separate  float64 `json:"separate"`        // how many rollouts fit into the history side by side
	Scale     float64 `json:"scale"`           // of the stages' durations; 1 unless the history is shorter than the rollout
	Measured  Rates   `json:"measured"`        // with φ as measured
	Used      Rates   `json:"used"`            // with φ as it is to be used
	Threshold float64 `json:"threshold_rule"`  // share of the same pseudo-rollouts that the raw rule takes back
	Rounds    int     `json:"rounds"`          // how often φ was raised
	Settled   bool    `json:"within_promises"` // no metric's evidence is too strong too often
}

// Rates are shares of pseudo-rollouts.
type Rates struct {
	TakenBack float64 `json:"taken_back"`
	AtMost    float64 `json:"taken_back_at_most"` // 95 % upper limit (Clopper & Pearson 1934), as if the replays were separate
	Doubtful  float64 `json:"e_value_20"`         // share whose combined e-value, or that of the worst metric, reached 20
}

// Tight is a limit that identical versions exceed by chance.
type Tight struct {
	Check string `json:"check"`
	Stage string `json:"stage"`
	// Natural is what 95 % of identical versions stay within, as a change. Nil: there is no bound, as where stable had no events at all.
	Natural *float64 `json:"natural"`
	Beyond  float64  `json:"beyond"` // share of identical versions beyond the limit at the end of the stage
}

// Promise is when an injected regression is caught.
type Promise struct {
	Metric string  `json:"metric"`
	Factor float64 `json:"factor"`
	// Allowed says that every limit allows it, so it is no regression.
	Allowed bool     `json:"allowed,omitempty"`
	Caught  float64  `json:"caught"`            // share of the pseudo-rollouts
	Median  *float64 `json:"median_seconds"`    // nil: not within the rollout
	P90     *float64 `json:"p90_seconds"`       // nil: not within the rollout
	Poll    float64  `json:"to_within_seconds"` // how finely time was looked at
}
