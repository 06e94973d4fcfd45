package plan

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// Rollout is what is planned.
type Rollout struct {
	Config      analysis.Config
	Criticality Criticality
	Stages      []Stage       // at least one
	Interval    time.Duration // of a poll, above 0
	// Settle is how long after a weight change nothing is compared. Nil: by stable's durations, where they are known.
	Settle *time.Duration
}

// Stage is a step of the rollout.
type Stage struct {
	Name        string
	Weight      int           // in basis points, 1 to 10000
	Duration    time.Duration // at least
	MaxHold     time.Duration // how long it may overstay that, undecided
	MinRequests int64
	Approval    bool // a human lets it pass
}

// Traffic is what stable does now.
type Traffic struct {
	RPS     float64         // requests a second of both versions together, above 0
	Metrics map[string]Base // by name; DefaultBase for what is not there
}

// Factors are the regressions that are foretold: so many times as many failures, as long, as dear; or a mean of what should be high that is so many
// times smaller.
var Factors = []float64{1.2, 1.5, 2, 5}

// Plan is what can be expected of a rollout. Times are in seconds, chances in [0,1].
type Plan struct {
	RPS float64 `json:"rps"`
	// Decides is whether the rollout can tell a bad canary from a good one at this traffic. Undecided says why not.
	Decides   bool     `json:"decides"`
	Undecided []string `json:"undecided,omitempty"`
	Planned   float64  `json:"planned_seconds"` // the durations' sum
	Takes     float64  `json:"takes_seconds"`   // without approvals, pauses and holds
	Approvals int      `json:"approvals"`
	Metrics   []Metric `json:"metrics"`
	Stages    []Leg    `json:"stages"`
	Catches   []Catch  `json:"catches"` // of the rollout as a whole, one per metric and kind of limit
	// Alpha bounds the chance that the tests ever take back a canary that keeps its limits; 0 where nothing is tested.
	Alpha float64 `json:"false_rollback_at_most"`
	// Floor is what rates may be worse in absolute terms, on top of their limits relative to stable.
	Floor float64 `json:"floor"`
	Rules []Rule  `json:"rules,omitempty"`
	// Threshold is the chance that identical versions break a raw threshold at least once, simulated. Nil where the method is not the raw rule.
	Threshold *float64 `json:"threshold_false_rollback,omitempty"`
	Warnings  []string `json:"warnings,omitempty"`
}

// Metric is what was taken for granted of one.
type Metric struct {
	Name    string   `json:"name"`
	Value   *float64 `json:"value"` // nil: not known
	Spread  float64  `json:"spread,omitempty"`
	Share   float64  `json:"share"` // trials per request
	Phi     float64  `json:"overdispersion"`
	Assumed bool     `json:"assumed"`
}

// Leg is a stage as it is expected.
type Leg struct {
	Name     string  `json:"name"`
	Weight   int     `json:"weight_basis_points"`
	Duration float64 `json:"duration_seconds"`
	Takes    float64 `json:"takes_seconds"`
	Because  string  `json:"because"`  // what takes longest: duration, min_requests or a check
	Requests float64 `json:"requests"` // the canary's
	// Held is the chance that identical versions are held at the end, since an estimate is beyond its limit by chance.
	Held   float64 `json:"held"`
	Checks []Seen  `json:"checks"`
}

// Seen is what a check sees in a stage.
type Seen struct {
	Check  string        `json:"check"`
	Metric string        `json:"metric"`
	Role   analysis.Role `json:"role"`
	// RulesOut is the smallest value of what the check limits that a canary like stable is expected to have shown to be too high, or low, by the end of the
	// stage. Nil: none.
	RulesOut *float64 `json:"rules_out"`
	Speeds   []Speed  `json:"speeds"`
}

// Speed is how soon a regression is caught.
type Speed struct {
	Factor float64 `json:"factor"`
	// Allowed: it is within the limit. Blind: there is nothing to compare with.
	Allowed bool     `json:"allowed,omitempty"`
	Blind   bool     `json:"blind,omitempty"`
	Median  *float64 `json:"median_seconds"` // half of the times; nil: never, or not within the rollout
	Chance  float64  `json:"chance"`         // of being caught in the stage, or in the rollout
	// Requests are those of the canary until then, half of the times.
	Requests *float64 `json:"requests,omitempty"`
}

// Catch is what the rollout as a whole catches of a regression that is there from the start.
type Catch struct {
	Metric   string   `json:"metric"`
	Relative bool     `json:"relative"`       // to stable
	Smallest *float64 `json:"smallest"`       // factor that is caught with a chance of 80 %; nil: none
	Limit    *float64 `json:"allowed_factor"` // up to which the limits allow it; nil: whatever it is
	Speeds   []Speed  `json:"speeds"`
}

// Rule is a rule on counted events.
type Rule struct {
	Check    string   `json:"check"`
	Metric   string   `json:"metric"`
	Requests float64  `json:"requests"` // trials of the canary that it looks at
	Rate     *float64 `json:"rate"`     // stable's own events per trial; nil: not known
	Chance   *float64 `json:"chance"`   // that a canary like stable breaks it; nil: not known
	// Tolerable is the rate of a canary that breaks it with a chance of 1 %; nil without requests.
	Tolerable *float64 `json:"tolerable_rate"`
}

// For foretells a rollout under a traffic. Errors say what can't be planned for, and what is allowed.
func For(r Rollout, t Traffic) (*Plan, error) {
	p, err := newPlanner(r, t)
	if err != nil {
		return nil, err
	}
	p.walk()
	p.catches()
	p.rules()
	p.threshold()
	p.judge()
	return p.out, nil
}

func (r Rollout) validate(t Traffic) error {
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if !(t.RPS > 0 && t.RPS <= mostRPS) { // true for NaN
		fail("traffic of %g requests a second: want a number above 0 and up to %g", t.RPS, float64(mostRPS))
	}
	if len(r.Stages) == 0 {
		fail("there are no stages, want at least one")
	}
	if r.Interval <= 0 {
		fail("interval %s: want a time above 0", r.Interval)
	}
	for _, s := range r.Stages {
		if s.Weight < 1 || s.Weight > whole {
			fail("stage %s: weight %d: want 1 to %d basis points", s.Name, s.Weight, whole)
		}
		if s.Duration < 0 || s.MaxHold < 0 || s.MinRequests < 0 {
			fail("stage %s: a duration or number is below 0", s.Name)
		}
	}
	return errors.Join(append(errs, r.Config.Validate())...)
}

// whole is a weight of 1.
const whole = 10_000

// some is a number as it is written down: nil where there is none.
func some(x float64) *float64 {
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return nil
	}
	return &x
}
