// Package api is the router's admin API as Go: the bodies of its requests and answers, and a thin client for it.
package api

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// FullWeight is all of an agent's new conversations, in basis points.
const FullWeight = 10000

// The rollback policies: what becomes of conversations in flight on a canary that is taken back.
const (
	Evict = "evict" // the next turn goes to stable (the default)
	Drain = "drain" // pinned conversations finish until a deadline
	Kill  = "kill"  // live streams end too
)

// The codes of an Error, for callers that branch on them.
const (
	CodeOwnershipLost       = "ownership_lost"       // 409, as a *Conflict
	CodeUnknownAgent        = "unknown_agent"        // 404
	CodeUnknownVersion      = "unknown_version"      // 422, in a route; 404 elsewhere
	CodeUnknownConversation = "unknown_conversation" // 404
	CodeInvalid             = "invalid"              // 400 or 422: the body can never be accepted
	CodeInUse               = "in_use"               // 409: the version is the stable or the canary
	CodeUnauthorized        = "unauthorized"         // 401
	CodeTooLarge            = "too_large"            // 413
	CodeNotFound            = "not_found"            // 404: no such path
	CodeMethodNotAllowed    = "method_not_allowed"   // 405
	CodeInternal            = "internal"             // 500
	CodeNotReady            = "not_ready"            // 503
)

// Route is the whole desired state of an agent's traffic: the body of PUT /v1/routes/{agent}.
type Route struct {
	Stable string `json:"stable"`
	Canary string `json:"canary"` // empty: none
	Weight int    `json:"weight"` // the canary's share of new conversations in basis points, 0 to 10000
	// Owner names the rollout; it is the salt of the choice, and with Revision the fence: an older revision of the owner, or
	// a second owner while the first is live, is refused.
	Owner    string `json:"owner"`
	Revision int64  `json:"revision"` // from 0; only grows
	// LeaseMillis is how long the canary may receive traffic without a renewal, in milliseconds; 0: for ever.
	LeaseMillis int64  `json:"lease_ms"`
	OnRollback  string `json:"on_rollback,omitempty"` // Evict, Drain or Kill; empty: Evict
	Rollback    bool   `json:"rollback,omitempty"`    // the canary is being taken back: weight 0, canary still named
	Promoted    bool   `json:"promoted,omitempty"`    // stable was the canary and stays: weight 0, no canary
	// Mirror is the share of stable's requests that are copied to the canary, whose answers are thrown away, in basis points.
	// Only with weight 0 and a canary.
	Mirror int `json:"mirror,omitempty"`
	// Epoch is the highest epoch of pins that the control plane has seen on any replica; 0: none. A replica that is behind takes
	// it over. It is no part of the route's identity: the same route with another epoch is a renewal.
	Epoch uint64 `json:"epoch,omitempty"`
}

// Lease is LeaseMillis as a duration.
func (r Route) Lease() time.Duration { return time.Duration(r.LeaseMillis) * time.Millisecond }

// Observed is the state of one agent as one router sees it.
type Observed struct {
	Agent                string   `json:"agent"`
	Stable               string   `json:"stable"`
	Canary               string   `json:"canary"`
	Weight               int      `json:"weight"`           // as set, in basis points
	EffectiveWeight      int      `json:"effective_weight"` // as in force: 0 once the lease has run out
	Owner                string   `json:"owner"`            // empty: nobody has ever set a route
	Revision             int64    `json:"revision"`
	OnRollback           string   `json:"on_rollback"`
	Rollback             bool     `json:"rollback"`
	LeaseRemainingMillis int64    `json:"lease_remaining_ms"`     // 0 when it has run out or there is none
	LeaseExpired         bool     `json:"lease_expired"`          // the canary had weight when the lease ran out
	Versions             []string `json:"versions"`               // sorted
	Mirror               int      `json:"mirror,omitempty"`       // in force, in basis points of stable's requests
	Epoch                uint64   `json:"epoch"`                  // of the pins: it grows when all of them are voided
	SideEffects          bool     `json:"side_effects,omitempty"` // the agent is never mirrored
	Changed              []string `json:"changed,omitempty"`      // stable or canary, if its fingerprint has changed since the owner came
}

// Routes is the answer of GET /v1/routes, sorted by agent.
type Routes struct {
	Instance string     `json:"instance"` // a random id per process start
	Routes   []Observed `json:"routes"`
}

// Version is one build of an agent in the registry: the body of PUT /v1/agents/{agent}/versions/{version}.
type Version struct {
	URL      string            `json:"url,omitempty"`      // http, https or h2c; where requests are sent to
	URLs     []string          `json:"urls,omitempty"`     // instead of URL: several instances of the version
	Metadata map[string]string `json:"metadata,omitempty"` // for people: model, prompt hash, tool schema hash
	// Fingerprint is of what the version is made of (model, prompt, tools). It may not change under one name while the version
	// is in use. Empty: not known.
	Fingerprint string `json:"fingerprint,omitempty"`
}

// Clone is a copy that shares nothing with v.
func (v Version) Clone() Version {
	v.URLs, v.Metadata = slices.Clone(v.URLs), maps.Clone(v.Metadata)
	return v
}

// Agent is one agent in the registry.
type Agent struct {
	Name     string             `json:"name"`
	Stable   string             `json:"stable"`
	Versions map[string]Version `json:"versions"`
}

// Agents is the answer of GET /v1/agents, sorted by name.
type Agents struct {
	Agents []Agent `json:"agents"`
}

// Counters are cumulative since the start of the process: the answer of GET /v1/counters?agent=A. All of one version's numbers
// are taken at one moment. A new Instance means that everything began again at zero.
type Counters struct {
	Instance     string              `json:"instance"`  // a random id per process start
	UptimeMillis int64               `json:"uptime_ms"` // since that start
	Agent        string              `json:"agent"`
	Bounds       []float64           `json:"bounds"` // upper bounds of the histograms' buckets in seconds, rising
	Versions     map[string]Counter  `json:"versions"`
	Shares       map[string]Fraction `json:"shares,omitempty"`
}

// Fraction is a version's share of the agent's traffic since the start of the process, in [0,1].
type Fraction struct {
	Requests      float64 `json:"requests"`
	Conversations float64 `json:"conversations"`
}

// Counter is the sum of what one version did. A request counts once, when its response has ended or failed.
type Counter struct {
	Requests int64 `json:"requests"`
	Errors   int64 `json:"errors"` // 5xx answers and transport failures; never a client that went away
	// Latency and TTFB hold one count per bound and a last one beyond all bounds; they are not cumulative over buckets.
	Latency          []int64          `json:"latency"`
	TTFB             []int64          `json:"ttfb"`
	Conversations    int64            `json:"conversations"` // that began on the version
	Tasks            Tasks            `json:"tasks"`
	SafetyViolations map[string]int64 `json:"safety_violations"` // by kind
	Satisfaction     Mean             `json:"satisfaction"`
	Tokens           Mean             `json:"tokens"`
	CostUSD          Mean             `json:"cost_usd"`
	ToolCalls        ToolCalls        `json:"tool_calls"`
}

// Tasks by outcome.
type Tasks struct {
	Completed int64 `json:"completed"`
	Failed    int64 `json:"failed"`
	Other     int64 `json:"other,omitempty"` // outcomes that are not known
}

// Mean is a sum and the number of values in it.
type Mean struct {
	Sum   float64 `json:"sum"`
	Count int64   `json:"count"`
}

// ToolCalls by outcome.
type ToolCalls struct {
	OK    int64 `json:"ok"`
	Error int64 `json:"error"`
}

// Feedback reports how a conversation went: the body of POST /v1/feedback. It names its version in exactly one of three ways.
type Feedback struct {
	Agent        string `json:"agent"`
	Version      string `json:"version,omitempty"`
	Pin          string `json:"pin,omitempty"`          // the token of the conversation; an expired one will do
	Conversation string `json:"conversation,omitempty"` // the conversation's id, while the router remembers it

	ID              string     `json:"id,omitempty"`               // repeats of an id count once
	Task            string     `json:"task,omitempty"`             // completed or failed
	SafetyViolation string     `json:"safety_violation,omitempty"` // its kind
	Satisfaction    *float64   `json:"satisfaction,omitempty"`     // finite, not negative; the scale is the agent's
	Tokens          *float64   `json:"tokens,omitempty"`           // of the task; finite, not negative
	CostUSD         *float64   `json:"cost_usd,omitempty"`         // of the task; finite, not negative
	ToolCalls       *ToolCalls `json:"tool_calls,omitempty"`       // not negative
}

// FeedbackResult is the answer to a Feedback.
type FeedbackResult struct {
	Version   string `json:"version"`   // that it was attributed to
	Duplicate bool   `json:"duplicate"` // the id was known: nothing was counted
}

// ErrorBody is the body of every answer that is not a success.
type ErrorBody struct {
	Code     string   `json:"code"`
	Error    string   `json:"error"`
	Known    []string `json:"known,omitempty"`    // with unknown_agent and unknown_version: what is known
	Owner    string   `json:"owner,omitempty"`    // with ownership_lost: who holds the route
	Revision *int64   `json:"revision,omitempty"` // with ownership_lost: at which revision
}

// Error is an answer that is not a success.
type Error struct {
	Status     int
	Code       string
	Message    string
	Known      []string
	RetryAfter time.Duration // 0: not said
}

func (e *Error) Error() string {
	return fmt.Sprintf("router answered %d %s: %s", e.Status, e.Code, e.Message)
}

// Conflict is the answer to a route that the fence refuses. It is final.
type Conflict struct {
	Owner    string // who holds the route
	Revision int64  // at which revision
	Message  string
}

func (e *Conflict) Error() string { return "router refused the route: " + e.Message }
