package router

import (
	"math/rand/v2"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// ByMirror is the reason of a copy: a request of stable's that the canary gets as well, whose answer nobody sees.
const ByMirror Reason = "mirror"

// mirrorSalt makes the choice of conversations to copy independent of the choice of those to move.
const mirrorSalt = 0x6d6972726f72

// Mirror is where a copy of the request that d was made for goes, if it is to be copied: conversations are copied whole, by their
// key, while the canary has a mirror and its lease holds. Never what a tester forced, nor what is not stable's.
func (r *Router) Mirror(d *Decision, key string) (Decision, bool) {
	a := r.table.Load().agents[d.Agent]
	if a == nil || a.mirror == 0 || a.onCanary == nil || d.version != a.onStable || d.Reason == ByOverride ||
		a.leased && r.clock.Mono() >= a.leaseUntil {
		return Decision{}, false
	}
	b := rand.IntN(Buckets) //nolint:gosec // a share of traffic is no secret
	if key != "" {
		b = bucket(xxhash.Sum64String(key), a.salt^mirrorSalt)
	}
	if b >= a.mirror {
		return Decision{}, false
	}
	copied := Decision{Agent: a.name, Bucket: b}
	copied.settle(a, a.onCanary, ByMirror)
	return copied, true
}

// MirrorDrop is why a copy was not sent.
type MirrorDrop int

// The reasons, as the metrics name them.
const (
	MirrorTooLarge MirrorDrop = iota // too_large: its body is larger than what is kept of it
	MirrorBroken                     // broken: the client's request did not arrive whole
	MirrorBusy                       // busy: too many copies are under way
	mirrorReasons
)

var mirrorLabels = [mirrorReasons]string{"too_large", "broken", "busy"}

// mirrorDrops count copies that were not sent.
type mirrorDrops [mirrorReasons]atomic.Int64

// MirrorDropped counts a copy for agent that was not sent.
func (r *Router) MirrorDropped(agent string, why MirrorDrop) {
	if a := r.table.Load().agents[agent]; a != nil {
		a.drops[why].Add(1)
	}
}
