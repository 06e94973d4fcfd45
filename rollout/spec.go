package rollout

import (
	"regexp"
	"strconv"
)

// Criticality says what lint and plan expect of a rollout's durations.
type Criticality string

// The criticalities.
const (
	Standard       Criticality = "standard"
	Conversational Criticality = "conversational"
	SafetyCritical Criticality = "safety-critical"
)

// Policy says what to do when a rollout can't decide by itself.
type Policy string

// The policies.
const (
	PolicyPause    Policy = "pause"
	PolicyRollback Policy = "rollback"
)

// OnRollback says what becomes of conversations in flight on the canary.
type OnRollback string

// The rollback policies.
const (
	Evict OnRollback = "evict" // the next turn goes to stable
	Drain OnRollback = "drain" // pinned conversations finish until a deadline
	Kill  OnRollback = "kill"  // live streams end too
)

// Spec is a whole rollout: the input of the workflow Canary and, in YAML, the rollout file.
// A Spec that came from config is complete: every default is filled in.
type Spec struct {
	Agent             string            `json:"agent"`
	Stable            string            `json:"stable"`
	Canary            string            `json:"canary"`
	Criticality       Criticality       `json:"criticality,omitempty"`
	Traffic           Traffic           `json:"traffic"`
	Metrics           Metrics           `json:"metrics"`
	Analysis          Analysis          `json:"analysis"`
	RollbackCriteria  RollbackCriteria  `json:"rollback_criteria"`
	PromotionCriteria PromotionCriteria `json:"promotion_criteria"`
	FreezeWhen        []string          `json:"freeze_when,omitempty"`
	Stages            []Stage           `json:"canary_stages"`
	Notify            Notify            `json:"notify"`
}

// Traffic says how the weight is set.
type Traffic struct {
	Driver     string     `json:"driver,omitempty"`
	Target     string     `json:"target,omitempty"`
	Lease      Duration   `json:"lease"` // 0: the canary's right to traffic never runs out
	OnRollback OnRollback `json:"on_rollback,omitempty"`
	Object     *Object    `json:"object,omitempty"` // where the weights are; nil: the data plane goes by the agent's name
}

// Object names where on a data plane an agent's weights are.
type Object struct {
	Namespace string `json:"namespace,omitempty"` // of Kubernetes
	Kind      string `json:"kind,omitempty"`      // VirtualService | HTTPRoute | GRPCRoute; empty: the driver's usual one
	Name      string `json:"name"`
	Rule      string `json:"rule,omitempty"` // the name of the rule in it that holds the weights
	// Stable and Canary are where the two versions run at the first rollout. From then on the two take turns: a canary that was promoted
	// stays where it is, and the next one comes to where stable was before.
	Stable Destination `json:"stable"`
	Canary Destination `json:"canary"`
}

// Destination is where a version runs, as the object's rule names it.
type Destination struct {
	Host   string `json:"host"`             // a host of Istio, or a Service
	Subset string `json:"subset,omitempty"` // of a DestinationRule of Istio; empty: none
}

// String is host, or host/subset.
func (d Destination) String() string {
	if d.Subset == "" {
		return d.Host
	}
	return d.Host + "/" + d.Subset
}

// Metrics says where the numbers come from.
type Metrics struct {
	Provider      string                `json:"provider,omitempty"`
	Target        string                `json:"target,omitempty"`
	Interval      Duration              `json:"interval"`        // one poll
	NoDataTimeout Duration              `json:"no_data_timeout"` // no canary requests, or no answer, for this long: OnNoData
	OnNoData      Policy                `json:"on_no_data,omitempty"`
	Definitions   map[string]Definition `json:"definitions,omitempty"`
}

// Definition is a metric of the rollout file, added to or instead of a provider's preset.
type Definition struct {
	Kind      string  `json:"kind"`   // ratio | count | mean | quantile | value
	Better    string  `json:"better"` // lower | higher
	Quantile  float64 `json:"quantile,omitempty"`
	Events    string  `json:"events,omitempty"`    // ratio, count: selector of the counter of events
	Trials    string  `json:"trials,omitempty"`    // ratio, count: selector of the counter of trials
	Histogram string  `json:"histogram,omitempty"` // quantile: selector of the histogram, without _bucket
	Sum       string  `json:"sum,omitempty"`       // mean: selector of the counter of sums
	Count     string  `json:"count,omitempty"`     // mean: selector of the counter of observations
	// Query is what is asked. Of prometheus and kind value: a query with {{.Agent}}, {{.Version}}, {{.Window}}. Of http: a path with {{.Agent}}, {{.Version}}
	// and perhaps {{.From}} and {{.To}}; events and the like are then JSONPath into the answer. Of sql: a query with @agent, @versions, @from, @to.
	Query string `json:"query,omitempty"`
	Value string `json:"value,omitempty"` // http and kind value: JSONPath of the number
}

// Fills reports whether the query fills in a field of its template, such as From, however it is spaced.
func (d Definition) Fills(field string) bool {
	for _, m := range filled.FindAllStringSubmatch(d.Query, -1) {
		if m[1] == field {
			return true
		}
	}
	return false
}

var filled = regexp.MustCompile(`\{\{(?:- )?\s*\.(\w+)\s*(?: -)?\}\}`)

// Analysis says how verdicts are reached.
type Analysis struct {
	Method  string  `json:"method,omitempty"`  // sequential | threshold
	Alpha   float64 `json:"alpha,omitempty"`   // chance that a canary as good as its limits is ever rolled back
	Beta    float64 `json:"beta,omitempty"`    // chance that proof is claimed wrongly
	Advance string  `json:"advance,omitempty"` // estimate | proof | ladder
	Floor   float64 `json:"floor"`             // absolute slack for ratios whose baseline is near zero
	// Settle is how long after a weight change nothing is compared. Nil: by the 99th percentile of stable's durations; 0: compared at once.
	Settle *Duration `json:"settle,omitempty"`
	// Overdispersion is the variance of a metric's counts over that of independent requests, 1 to 1000, by metric. 1 where it is absent.
	Overdispersion map[string]float64 `json:"overdispersion,omitempty"`
	// CohortSpread is the standard deviation of the logarithm of a metric's ratio between two cohorts of users on the same version, 0 to 1, by
	// metric. 0 where it is absent.
	CohortSpread map[string]float64 `json:"cohort_spread,omitempty"`
}

// RollbackCriteria guard every stage, all the time. A nil field is not asked.
type RollbackCriteria struct {
	MaxErrorIncrease      *float64 `json:"max_error_increase,omitempty"`
	MaxSafetyViolations   *float64 `json:"max_safety_violations,omitempty"`
	MaxCompletionDrop     *float64 `json:"max_completion_drop,omitempty"`
	MaxLatencyIncrease    *float64 `json:"max_latency_increase,omitempty"`
	MaxToolErrorIncrease  *float64 `json:"max_tool_error_increase,omitempty"`
	MaxCostIncrease       *float64 `json:"max_cost_increase,omitempty"`
	MaxTokensIncrease     *float64 `json:"max_tokens_increase,omitempty"`
	MaxSatisfactionDrop   *float64 `json:"max_satisfaction_drop,omitempty"`
	MaxFirstTokenIncrease *float64 `json:"max_time_to_first_token_increase,omitempty"`
}

// Checks are the criteria as checks, in a fixed order.
func (c RollbackCriteria) Checks() []string {
	return atMost(
		criterion{"safety_violations", c.MaxSafetyViolations},
		criterion{"error_rate_increase", c.MaxErrorIncrease},
		criterion{"task_completion_rate_drop", c.MaxCompletionDrop},
		criterion{"p95_latency_increase", c.MaxLatencyIncrease},
		criterion{"time_to_first_token_increase", c.MaxFirstTokenIncrease},
		criterion{"tool_error_rate_increase", c.MaxToolErrorIncrease},
		criterion{"cost_per_task_increase", c.MaxCostIncrease},
		criterion{"tokens_per_task_increase", c.MaxTokensIncrease},
		criterion{"user_satisfaction_drop", c.MaxSatisfactionDrop},
	)
}

// PromotionCriteria are asked at the end of every stage. A nil field is not asked.
type PromotionCriteria struct {
	MaxErrorIncrease        *float64 `json:"max_error_increase,omitempty"`
	MaxCompletionRegression *float64 `json:"max_completion_regression,omitempty"`
	MaxLatencyIncrease      *float64 `json:"max_latency_increase,omitempty"`
	MaxCostIncrease         *float64 `json:"max_cost_increase,omitempty"`
	MaxSatisfactionDrop     *float64 `json:"max_satisfaction_drop,omitempty"`
}

// Checks are the criteria as checks, in a fixed order.
func (c PromotionCriteria) Checks() []string {
	return atMost(
		criterion{"error_rate_increase", c.MaxErrorIncrease},
		criterion{"task_completion_rate_regression", c.MaxCompletionRegression},
		criterion{"p95_latency_increase", c.MaxLatencyIncrease},
		criterion{"cost_per_task_increase", c.MaxCostIncrease},
		criterion{"user_satisfaction_drop", c.MaxSatisfactionDrop},
	)
}

type criterion struct {
	left  string
	limit *float64
}

func atMost(criteria ...criterion) []string {
	var out []string
	for _, c := range criteria {
		if c.limit != nil {
			out = append(out, c.left+" <= "+strconv.FormatFloat(*c.limit, 'g', -1, 64))
		}
	}
	return out
}

// Approval says whether a human must let a stage pass.
type Approval string

// The approvals.
const (
	ApprovalNone     Approval = "none"
	ApprovalRequired Approval = "required"
)

// Stage is a step of a rollout.
type Stage struct {
	Name         string   `json:"name"`
	Weight       Weight   `json:"weight"`
	Mirror       Weight   `json:"mirror,omitempty"` // with weight 0: the share of stable's requests that are copied to the canary
	Duration     Duration `json:"duration"`         // least time observed, without pauses and gaps
	MinRequests  int64    `json:"min_requests,omitempty"`
	AutoRollback bool     `json:"auto_rollback"` // false: a violation pauses for a human, except a safety violation
	Approval     Approval `json:"approval,omitempty"`
	MaxHold      Duration `json:"max_hold"` // how long it may overstay its duration, undecided
	OnHold       Policy   `json:"on_hold,omitempty"`
	Checks       []string `json:"checks,omitempty"`
}

// Share is what the canary gets in words: "5%", or "mirror 10%".
func (s Stage) Share() string { return share(s.Weight, s.Mirror) }

// Exposure is the share of requests that reach the canary, for users to see or as copies.
func (s Stage) Exposure() Weight { return max(s.Weight, s.Mirror) }

func share(weight, mirror Weight) string {
	if weight == 0 && mirror > 0 {
		return "mirror " + mirror.String()
	}
	return weight.String()
}

// Notify says who is told.
type Notify struct {
	Slack   *SlackNotice   `json:"slack,omitempty"`
	Webhook *WebhookNotice `json:"webhook,omitempty"`
}

// SlackNotice names a Slack target and a channel.
type SlackNotice struct {
	Target  string `json:"target,omitempty"`
	Channel string `json:"channel"`
}

// WebhookNotice names a webhook target.
type WebhookNotice struct {
	Target string `json:"target,omitempty"`
}
