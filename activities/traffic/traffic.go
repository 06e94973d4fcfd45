// Package traffic is the port to data planes: who sets the canary's weight, and how what is set is read back.
package traffic

import (
	"context"
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Driver moves the traffic of agents on one data plane. Implementations are safe for concurrent use.
type Driver interface {
	// Capabilities say what the data plane can express. They never change.
	Capabilities() Capabilities
	// Apply makes route the whole desired state of its agent. It is idempotent, and returns only after the weight has been read
	// back from every replica. The same route again renews the lease. Errors: *OwnershipLost, *Rejected, or a passing fault.
	Apply(ctx context.Context, route rollout.Route) error
	// Read is what the data plane says now about route's agent. Only Agent and Object of the route count. Errors: *Rejected for an
	// unknown agent or object, or a passing fault.
	Read(ctx context.Context, route rollout.Route) (Observed, error)
	// List is Read for every agent that the data plane knows; where it goes by objects, for those that ever had a route of ours.
	List(ctx context.Context) ([]Observed, error)
}

// Inspector is a driver that can look at more than a route's weights: whether what a rollout names is there, and whether the driver may
// change it.
type Inspector interface {
	// Inspect changes nothing. The paths of remarks are those of the rollout file.
	Inspect(ctx context.Context, route rollout.Route) []rollout.Remark
}

// Capabilities of a data plane.
type Capabilities struct {
	Step     rollout.Weight // least step of a weight, in basis points
	Sticky   string         // what a choice sticks to: conversation, user, request
	Lease    bool           // traffic is taken back when the lease runs out, by the data plane or by the guard (Leased)
	Override bool           // testers can force the canary
	Mirror   bool           // stable's requests can be copied to the canary
}

// Observed is the state of one agent on the data plane.
type Observed struct {
	Agent        string          `json:"agent"`
	Stable       string          `json:"stable"`
	Canary       string          `json:"canary,omitempty"`
	Weight       rollout.Weight  `json:"weight"`                 // as set; the highest of all replicas
	Effective    rollout.Weight  `json:"effective"`              // as in force: 0 once the lease has run out; the highest of all replicas
	Mirror       rollout.Weight  `json:"mirror,omitempty"`       // in force, of stable's requests; the highest of all replicas
	SideEffects  bool            `json:"side_effects,omitempty"` // the agent's requests must not be mirrored
	Owner        string          `json:"owner,omitempty"`
	Revision     int64           `json:"revision"`
	LeaseExpired bool            `json:"lease_expired,omitempty"`
	Versions     []string        `json:"versions,omitempty"`   // that the data plane can send traffic to; nil: it does not know
	Changed      []string        `json:"changed,omitempty"`    // stable or canary, if it became another under its name since the owner came
	Drift        string          `json:"drift,omitempty"`      // what else somebody changed about what was set, in words
	ChangedBy    string          `json:"changed_by,omitempty"` // who wrote last what differs from what was set, and when, if the data plane tells
	Object       *rollout.Object `json:"object,omitempty"`     // where that is; nil: the data plane goes by the agent's name
	Lagging      []string        `json:"lagging,omitempty"`    // replicas that differ from the rest
}

// Exposed reports whether requests reach the canary, for users to see or as copies.
func (o Observed) Exposed() bool { return o.Weight > 0 || o.Mirror > 0 }

// OwnershipLost is the answer to an older revision, or to a route that another live owner holds. It is final.
type OwnershipLost struct {
	Agent    string
	Owner    string // who holds the route
	Revision int64
}

func (e *OwnershipLost) Error() string {
	return fmt.Sprintf("agent %s is held by %s at revision %d", e.Agent, e.Owner, e.Revision)
}

// Rejected is the answer to a route that can never be applied: an unknown agent or version, a weight too fine. It is final.
type Rejected struct{ Reason string }

func (e *Rejected) Error() string { return e.Reason }

// Busy is a passing fault after which the data plane asks for a pause.
type Busy struct {
	RetryAfter time.Duration
	Err        error
}

func (e *Busy) Error() string { return e.Err.Error() }

// Unwrap is the fault itself.
func (e *Busy) Unwrap() error { return e.Err }
