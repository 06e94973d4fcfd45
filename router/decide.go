package router

import (
	"errors"
	"math/rand/v2"
	"net/url"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/aviary-rollouts/aviary/router/upstream"
)

// The errors of Decide.
var (
	ErrUnknownAgent   = errors.New("agent is not known")
	ErrUnknownVersion = errors.New("version is not known")
	ErrNoVersion      = errors.New("agent has no version")
)

// Reason says why Decide chose a version.
type Reason string

// The reasons.
const (
	ByWeight       Reason = "weight"        // by the key's bucket
	ByPin          Reason = "pin"           // the conversation stays where it began
	ByMemory       Reason = "memory"        // as by pin, but by Options.StickyMemory
	ByOverride     Reason = "override"      // a tester's wish
	ByLeaseExpired Reason = "lease_expired" // the canary's lease has run out: stable
	ByNoKey        Reason = "no_key"        // by a random bucket
)

// Request is what Decide knows about a request. Pin may be forged: it is checked. Override must not: check it before.
type Request struct {
	Key      string // what the choice sticks to; empty: a random bucket
	Pin      string // the token that came with the request, if any
	Override string // the version a believed tester wants; empty: none
}

// Decision is what Decide chose. It is a value: nothing in it changes.
type Decision struct {
	Agent        string
	Version      string
	Reason       Reason
	Bucket       int    // in [0, Buckets), or -1 where none was needed
	Canary       bool   // Version is the canary
	MigratedFrom string // the version that a pin named, when the conversation can't stay there
	// NewPin says that the client should get a token (AppendPin): it has none, or an old one.
	NewPin         bool
	rollout, epoch uint64 // as in claims
	version        *Version
}

// Target is the base URL of the version that was chosen, of its first instance if there are several. The caller must not change it.
func (d *Decision) Target() *url.URL { return d.version.upstreams.First() }

// Upstreams are the instances of the version that was chosen, for callers that send the request themselves.
func (d *Decision) Upstreams() *upstream.Set { return d.version.upstreams }

// Stands reports whether Decide could still decide so. A canary that was taken back since, or whose lease ran out, gets no conversation that
// had not begun, and of the others those that the rollback policy allows. A tester's wish stands.
func (r *Router) Stands(d *Decision) bool {
	a := r.table.Load().agents[d.Agent]
	if !d.Canary || d.Reason == ByOverride || d.Reason == ByMirror || a == nil {
		return true
	}
	now := r.clock.Mono()
	if begun := d.Reason == ByPin || d.Reason == ByMemory; !begun && (a.rollback || a.expired(now)) {
		return false
	}
	return a.versions[d.Version] != nil && a.honours(claims{version: d.Version, rollout: d.rollout, epoch: d.epoch}, now)
}

// Stats count what the version that was chosen does.
func (d *Decision) Stats() *Stats { return d.version.stats }

// Streams are the live requests to the version that was chosen.
func (d *Decision) Streams() *Streams {
	if d.Reason == ByMirror {
		return d.version.copies
	}
	return d.version.streams
}

// AppendPin appends the token that keeps the conversation of d where it is to dst. Only for a Decision with NewPin.
func (r *Router) AppendPin(dst []byte, d *Decision) []byte {
	return r.keys.appendToken(dst, kindPin, claims{
		agent: d.Agent, version: d.Version, rollout: d.rollout, epoch: d.epoch, expiry: r.clock.Wall().Add(r.pinTTL).Unix(),
	})
}

// Decide chooses the version of agent that serves q. It takes no lock, but for Options.StickyMemory, and allocates nothing,
// but for a pin to a version that is not registered. It is safe for concurrent use with everything else.
// Errors: ErrUnknownAgent, ErrUnknownVersion for the override, ErrNoVersion.
func (r *Router) Decide(agent string, q Request) (Decision, error) {
	a := r.table.Load().agents[agent]
	if a == nil {
		return Decision{}, ErrUnknownAgent
	}
	d := Decision{Agent: a.name, Bucket: -1}
	if q.Override != "" {
		v := a.versions[q.Override]
		if v == nil {
			return Decision{}, ErrUnknownVersion
		}
		d.settle(a, v, ByOverride)
		return d, nil
	}
	now := r.clock.Mono()
	c := r.pinned(a, q)
	if c.version != "" {
		if v := a.versions[c.version]; v != nil && a.honours(c, now) {
			r.keep(&d, a, v, c)
			return d, nil
		}
	}
	v, reason := a.choose(&d, q.Key, now)
	if v == nil {
		return Decision{}, ErrNoVersion
	}
	d.settle(a, v, reason)
	if c.version != d.Version {
		d.MigratedFrom = c.version
	}
	d.NewPin, d.epoch = true, a.epochs.now
	if d.Canary {
		d.rollout = a.salt
	}
	return d, nil
}

// pinned is what the request's pin says or, without a good one, what is remembered of its key; no version: nothing.
func (r *Router) pinned(a *agentTable, q Request) claims {
	if q.Pin != "" {
		if c, err := r.keys.open(kindPin, a.name, q.Pin, a.versions, r.clock.Wall()); err == nil {
			return c
		}
	}
	if a.sticky && q.Key != "" {
		if c, ok := a.recall.claims(xxhash.Sum64String(q.Key)); ok && r.clock.Wall().Unix() < c.expiry {
			return c
		}
	}
	return claims{}
}

// keep lets the conversation stay on v, and gives it a new pin if it has none or an old one.
func (r *Router) keep(d *Decision, a *agentTable, v *Version, c claims) {
	d.settle(a, v, ByPin)
	if c.remembered {
		d.Reason = ByMemory
	}
	d.NewPin = c.remembered || c.oldKey || a.stale(c) || time.Unix(c.expiry, 0).Sub(r.clock.Wall()) < r.pinTTL/2
	c = a.renewed(c)
	d.rollout, d.epoch = c.rollout, c.epoch
}

func (d *Decision) settle(a *agentTable, v *Version, reason Reason) {
	d.version, d.Version, d.Reason, d.Canary = v, v.name, reason, v == a.onCanary
}

// choose picks by weight, and sets the bucket.
func (a *agentTable) choose(d *Decision, key string, now time.Duration) (*Version, Reason) {
	reason := ByWeight
	switch {
	case key == "":
		reason = ByNoKey
		d.Bucket = rand.IntN(Buckets) //nolint:gosec // a share of traffic is no secret
	case a.flagd:
		d.Bucket = FlagdBucket(key, a.owner)
	default:
		d.Bucket = bucket(xxhash.Sum64String(key), a.salt)
	}
	if a.expired(now) {
		return a.onStable, ByLeaseExpired
	}
	if d.Bucket < a.weight {
		return a.onCanary, reason
	}
	return a.onStable, reason
}
