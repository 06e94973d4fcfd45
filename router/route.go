package router

import (
	"fmt"
	"maps"
	"slices"
	"time"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"

	"github.com/aviary-rollouts/aviary/router/api"
	"github.com/aviary-rollouts/aviary/router/upstream"
)

// maxOwners is how many former owners an agent remembers, so as to refuse their stragglers.
const maxOwners = 32

// maxLease bounds a lease, in milliseconds: a year.
const maxLease = 366 * 24 * 3600 * 1000

// agentState is what the router knows about an agent, guarded by Router.mu.
type agentState struct {
	name        string
	born        time.Duration // by Clock.Mono
	stable      string
	configured  string          // stable by the settings; empty: the agent is not there
	flagd       bool            // HashFlagd
	limits      upstream.Limits // of each version
	sideEffects bool
	drops       *mirrorDrops
	versions    map[string]*Version
	recall      *recall
	sticky      bool // Options.StickyMemory
	seen        *idSet

	route      api.Route // the last one accepted; without Owner: none
	cold       bool      // route is from before a restart: its fence and pins hold, its weight waits for a renewal
	leased     bool
	leaseUntil time.Duration // by Clock.Mono
	drainUntil time.Duration // by Clock.Mono

	changes map[string]int64 // of identity, by version, when the present owner came

	epochs epochs
	owners []savedOwner
}

// weight is the canary's weight as set in this process.
func (s *agentState) weight() int {
	if s.cold {
		return 0
	}
	return s.route.Weight
}

func (s *agentState) leaseHolds(now time.Duration) bool { return !s.leased || now < s.leaseUntil }

// live reports whether the owner still holds the agent against others.
func (s *agentState) live(now time.Duration) bool {
	return (s.route.Weight > 0 || s.route.Mirror > 0) && s.leaseHolds(now)
}

// mirror is the share of stable's requests to copy, as set in this process.
func (s *agentState) mirror() int {
	if s.cold {
		return 0
	}
	return s.route.Mirror
}

func (s *agentState) table(drain time.Duration) *agentTable {
	return &agentTable{
		name: s.name, stable: s.stable, canary: s.route.Canary, weight: s.weight(), mirror: s.mirror(), drops: s.drops, salt: xxhash.Sum64String(s.route.Owner),
		flagd: s.flagd, owner: s.route.Owner,
		epochs: s.epochs, unheardUntil: s.unheardUntil(), policy: Policy(s.route.OnRollback), rollback: s.route.Rollback,
		leased: s.leased, leaseUntil: s.leaseUntil, drain: drain, drainUntil: s.drainUntil, versions: s.versions,
		onStable: s.versions[s.stable], onCanary: s.versions[s.route.Canary], recall: s.recall, sticky: s.sticky,
	}
}

// SetRoute makes route the whole desired state of agent and returns what is in force. The same route again renews the lease.
// An Epoch above the router's own is taken over, with a renewal too; it is no part of what makes two routes the same.
// Errors: *api.Conflict from the fence, *Refusal for a route that can't be, or that the state was not saved (it is in force).
func (r *Router) SetRoute(agent string, route api.Route) (api.Observed, error) {
	if route.OnRollback == "" {
		route.OnRollback = api.Evict
	}
	if err := checkShape(route); err != nil {
		return api.Observed{}, err
	}
	epoch := route.Epoch
	route.Epoch = 0
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.agents[agent]
	if s == nil {
		return api.Observed{}, r.unknownAgent(agent)
	}
	now := r.clock.Mono()
	if err := s.fence(route, now); err != nil {
		return api.Observed{}, err
	}
	if err := s.checkVersions(route); err != nil {
		return api.Observed{}, err
	}
	renewal := route == s.route
	if !renewal {
		s.accept(route, epoch, now, r.drain)
	}
	joined := s.epochs.join(epoch)
	s.cold = false
	s.leased = route.LeaseMillis > 0
	s.leaseUntil = now + route.Lease()
	r.publish()
	// After publish: a request decided before it is ended, and one decided after it no longer goes to the canary.
	for name, v := range s.versions {
		v.streams.setKilled(route.Rollback && route.OnRollback == api.Kill && name == route.Canary)
		v.copies.setKilled(route.Mirror == 0 || name != route.Canary)
	}
	if joined {
		r.unsaved = true
	}
	if !renewal {
		r.unsaved = true
		r.log.Info("route set", "agent", agent, "stable", route.Stable, "canary", route.Canary, "weight", route.Weight,
			"owner", route.Owner, "revision", route.Revision, "rollback", route.Rollback, "promoted", route.Promoted)
	}
	var err error
	if r.unsaved {
		if err = r.save(); err != nil {
			err = fmt.Errorf("the route is in force, but a restart would forget it: %w", err)
		}
	}
	return s.observed(now), err
}

// accept replaces the route. Epoch is the highest that the control plane has seen.
func (s *agentState) accept(route api.Route, epoch uint64, now, drain time.Duration) {
	before := s.route
	changed := before.Owner != route.Owner
	if changed {
		s.epochs.rollout(slices.ContainsFunc(s.owners, func(o savedOwner) bool { return o.Owner == route.Owner }))
		s.changes = s.changesNow()
	}
	again := before.Rollback && !changed && before.Canary == route.Canary
	switch {
	case route.Rollback && !again:
		s.epochs.rollback(epoch)
		s.drainUntil = now + drain
	case changed && before.Canary != "" && !before.Rollback:
		s.epochs.void(epoch) // the rollout before was left lying; its canary's conversations must not wake up in this one
	}
	s.owners = slices.DeleteFunc(s.owners, func(o savedOwner) bool { return o.Owner == route.Owner })
	s.owners = append(s.owners, savedOwner{Owner: route.Owner, Revision: route.Revision})
	if len(s.owners) > maxOwners {
		s.owners = slices.Delete(s.owners, 0, len(s.owners)-maxOwners)
	}
	s.route, s.stable = route, route.Stable
}

// fence refuses an older revision of an owner, another content for a revision, and another owner while one is live.
func (s *agentState) fence(route api.Route, now time.Duration) error {
	conflict := func(owner string, revision int64, why string) error {
		return &api.Conflict{Owner: owner, Revision: revision, Message: fmt.Sprintf("agent %s is held by %s at revision %d: %s",
			s.name, owner, revision, why)}
	}
	if route.Owner != s.route.Owner {
		if s.live(now) {
			return conflict(s.route.Owner, s.route.Revision, "its rollout is live")
		}
		for _, o := range s.owners {
			if o.Owner == route.Owner && route.Revision <= o.Revision {
				return conflict(s.route.Owner, s.route.Revision, fmt.Sprintf("the owner before it had come to revision %d", o.Revision))
			}
		}
		return nil
	}
	if route.Revision < s.route.Revision {
		return conflict(s.route.Owner, s.route.Revision, fmt.Sprintf("revision %d is older", route.Revision))
	}
	if route.Revision == s.route.Revision && route != s.route {
		return conflict(s.route.Owner, s.route.Revision, "this revision had another content")
	}
	return nil
}

// checkShape refuses a route that no agent could have.
func checkShape(route api.Route) error {
	invalid := func(format string, args ...any) error {
		return &Refusal{Code: api.CodeInvalid, Message: fmt.Sprintf(format, args...)}
	}
	switch {
	case route.Weight < 0 || route.Weight > api.FullWeight:
		return invalid("weight %d: want basis points from 0 to %d", route.Weight, api.FullWeight)
	case route.Owner == "" || len(route.Owner) > 512:
		return invalid("owner has %d bytes: want 1 to 512", len(route.Owner))
	case !utf8.ValidString(route.Owner):
		return invalid("owner %q: want valid UTF-8", route.Owner)
	case route.Revision < 0:
		return invalid("revision %d: want 0 or more", route.Revision)
	case route.Mirror < 0 || route.Mirror > api.FullWeight:
		return invalid("mirror %d: want basis points from 0 to %d", route.Mirror, api.FullWeight)
	case route.Mirror > 0 && (route.Weight > 0 || route.Canary == "" || route.Rollback || route.Promoted):
		return invalid("mirror %d: want a canary of weight 0, and neither rollback nor promoted", route.Mirror)
	case route.LeaseMillis < 0 || route.LeaseMillis > maxLease:
		return invalid("lease_ms %d: want 0 (never runs out) to %d", route.LeaseMillis, maxLease)
	case route.Epoch > maxEpoch:
		return invalid("epoch %d: want 0 to %d", route.Epoch, uint64(maxEpoch))
	case route.OnRollback != api.Evict && route.OnRollback != api.Drain && route.OnRollback != api.Kill:
		return invalid("on_rollback %q: want evict, drain or kill", route.OnRollback)
	case route.Stable == "":
		return invalid("stable is empty: want a version")
	case route.Canary == route.Stable:
		return invalid("canary %q is also stable: want two versions", route.Canary)
	case route.Weight > 0 && (route.Canary == "" || route.Rollback || route.Promoted):
		return invalid("weight %d: want a canary, and neither rollback nor promoted", route.Weight)
	case route.Rollback && (route.Canary == "" || route.Promoted):
		return invalid("rollback: want the canary it takes back, and not promoted")
	case route.Promoted && route.Canary != "":
		return invalid("promoted with canary %q: want the promoted version as stable, and no canary", route.Canary)
	}
	return nil
}

// checkVersions refuses versions that nobody has registered, and a stable version that is not the agent's. A rollback may name
// a canary that is gone: nothing goes there, and it must always succeed.
func (s *agentState) checkVersions(route api.Route) error {
	for _, v := range []string{route.Stable, route.Canary} {
		if s.versions[v] == nil && v != "" && (v == route.Stable || !route.Rollback) {
			return s.unknownVersion(v)
		}
	}
	if route.Mirror > 0 && s.sideEffects {
		return &Refusal{Code: api.CodeInvalid, Message: fmt.Sprintf(
			"mirror %d: the requests of agent %s have side effects, which copies would double", route.Mirror, s.name)}
	}
	if route.Stable != s.stable && !route.Promoted && route.Owner != s.route.Owner {
		return &Refusal{Code: api.CodeInvalid, Message: fmt.Sprintf(
			"stable %q: agent %s has %s as its stable version; only a promotion changes it", route.Stable, s.name, s.stable)}
	}
	return nil
}

// Observed is what is in force for agent. Errors: *Refusal for an unknown one.
func (r *Router) Observed(agent string) (api.Observed, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.agents[agent]
	if s == nil {
		return api.Observed{}, r.unknownAgent(agent)
	}
	return s.observed(r.clock.Mono()), nil
}

// AllObserved is Observed for every agent, sorted by name.
func (r *Router) AllObserved() []api.Observed {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.clock.Mono()
	out := make([]api.Observed, 0, len(r.agents))
	for _, name := range slices.Sorted(maps.Keys(r.agents)) {
		out = append(out, r.agents[name].observed(now))
	}
	return out
}

func (s *agentState) observed(now time.Duration) api.Observed {
	o := api.Observed{
		SideEffects: s.sideEffects, Agent: s.name, Stable: s.stable, Canary: s.route.Canary, Weight: s.weight(), Owner: s.route.Owner, Revision: s.route.Revision,
		OnRollback: s.route.OnRollback, Rollback: s.route.Rollback, Versions: slices.Sorted(maps.Keys(s.versions)),
		Epoch: s.epochs.now,
	}
	if o.OnRollback == "" {
		o.OnRollback = api.Evict
	}
	for _, name := range []string{s.stable, s.route.Canary} {
		if v := s.versions[name]; v != nil && v.identity.count() > s.changes[name] {
			o.Changed = append(o.Changed, name)
		}
	}
	if s.leaseHolds(now) {
		o.EffectiveWeight, o.Mirror = o.Weight, s.mirror()
	} else {
		o.LeaseExpired = o.Weight > 0 || s.mirror() > 0
	}
	if s.leased && !s.cold {
		// Rounded up: a lease that holds never reads as 0.
		o.LeaseRemainingMillis = int64((max(0, s.leaseUntil-now) + time.Millisecond - 1) / time.Millisecond)
	}
	return o
}
