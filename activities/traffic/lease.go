package traffic

import (
	"context"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Leased is a driver of a data plane that does not take traffic back by itself when a lease runs out. The driver writes down when a
// lease was renewed, and the guard, another process, takes the traffic back.
type Leased interface {
	Driver
	// Leases are those of every route whose canary has traffic and a lease, of all agents. Errors: a passing fault, beside those that
	// could be read all the same.
	Leases(ctx context.Context) ([]Lease, error)
	// Expire takes all traffic back from the canary, unless the lease was renewed since l was read: then it changes nothing. It is
	// idempotent. What was set stays written down, so that Read tells of it as LeaseExpired, and a renewal brings the canary back.
	// Errors: a passing fault.
	Expire(ctx context.Context, l Lease) error
}

// Lease is a canary's right to traffic on a data plane.
type Lease struct {
	Agent    string
	Object   *rollout.Object // where its weights are; nil: the data plane goes by the agent's name
	Owner    string
	Revision int64
	TTL      time.Duration // how long one renewal lasts
	Renewal  string        // changes with every renewal; times in it are not to be compared with a clock of another machine
}
