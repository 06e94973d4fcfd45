package router

import (
	"time"

	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// table is everything Decide reads: an immutable snapshot, replaced as a whole.
type table struct {
	agents map[string]*agentTable
}

// agentTable is the route of one agent, ready for Decide.
type agentTable struct {
	name, stable, canary string
	weight               int // of the canary in basis points
	mirror               int // of stable's requests in basis points
	drops                *mirrorDrops
	salt                 uint64 // xxh64 of the owner
	flagd                bool   // divided by FlagdBucket, with the owner as salt
	owner                string
	epochs               epochs
	unheardUntil         time.Duration // by Clock.Mono: until then pins to a canary hold though no control plane has spoken
	policy               Policy
	rollback             bool
	leased               bool          // leaseUntil counts
	leaseUntil           time.Duration // by Clock.Mono
	drain                time.Duration // how long pins last after the lease, or a rollback, with Drain
	drainUntil           time.Duration // by Clock.Mono, with rollback and Drain
	versions             map[string]*Version
	onStable, onCanary   *Version // of versions; nil: not registered
	recall               *recall
	sticky               bool // conversations without a pin keep what recall says
}

// expired reports whether the canary has weight but no lease any more.
func (a *agentTable) expired(now time.Duration) bool {
	return a.weight > 0 && a.leased && now >= a.leaseUntil
}

// Version is a build of an agent that requests can go to.
type Version struct {
	name      string
	spec      api.Version // as registered, its addresses in their usual form
	fixed     bool        // comes from the settings: neither saved nor deleted
	upstreams *upstream.Set
	stats     *Stats
	streams   *Streams
	copies    *Streams // by mirror
	identity  *identity
}

// Policy says what becomes of conversations in flight on a canary that is taken back, or whose lease has run out.
type Policy string

// The policies.
const (
	Evict Policy = "evict" // the next turn goes to stable
	Drain Policy = "drain" // pinned conversations finish until a deadline
	Kill  Policy = "kill"  // live streams end too
)
