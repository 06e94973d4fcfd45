package analysis

// Role says when a check is asked.
type Role string

// The roles.
const (
	RoleGuard     Role = "guard"     // a rollback criterion: all the time
	RoleStage     Role = "stage"     // during its stage
	RolePromotion Role = "promotion" // only at the end of a stage
)

// Verdict is the answer to a check, or to all of them.
type Verdict string

// The verdicts.
const (
	Met       Verdict = "met"
	Violated  Verdict = "violated"
	Undecided Verdict = "undecided"
	NoData    Verdict = "no_data"
)

// Report is the answer to all checks in force.
type Report struct {
	// Verdict is of the guards and the stage's checks, now.
	Verdict Verdict
	// Gate is the answer at the end of a stage, with the promotion checks: violated → roll back, undecided or no_data → hold,
	// met → advance.
	Gate Verdict
	// Safety is whether a rule on counted events fired. It holds whatever the method, the traffic and the stage.
	Safety bool
	// Findings are the answers one by one: guards, stage and promotion checks, each in the order of the configuration.
	Findings []Finding
	// Blame is the check that weighs most in a violation, as it was written. It is empty when nothing is violated.
	Blame string
	// EValue is the weighted mean of the e-values of the guards and the stage's checks: at 1/alpha the canary is rolled back.
	// It is NaN where nothing is tested sequentially.
	EValue float64
	// Mismatch says that the observed share of traffic contradicts the weight. It is empty when it does not. While it is not, Gate is never met.
	Mismatch string
}

// Finding is the answer to one check, with the numbers behind it. What is not available is NaN.
type Finding struct {
	Check   string // as it was written
	Metric  string
	Role    Role
	Verdict Verdict
	Safety  bool // a rule on counted events, and it fired

	// Lately is whether the numbers are of the polls since the evidence began to rise, because the stage as a whole does not show the change.
	Lately bool

	// What was counted: trials and events of ratios and counts, observations and sum of means, observations of quantiles.
	// Of the stage, but of the whole rollout for rules on counted events.
	StableN, StableX, CanaryN, CanaryX float64

	StableEstimate, CanaryEstimate float64 // the metric itself, per version
	Change                         float64 // relative to stable, bigger is more of the named thing; +Inf from nothing to something
	Limit                          float64
	Allowed                        float64 // the canary's own value that the floor still allows, where only the floor lets the change pass
	EValue                         float64 // evidence against the check; at its weight times this, see Report.EValue
	Lower, Upper                   float64 // an interval of what the limit is on, which holds Change
	Needed                         float64 // canary requests still needed, about
	Note                           string  // one sentence
}
