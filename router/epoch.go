package router

import "time"

// maxEpoch bounds the epochs of pins: a counter of rollbacks never comes near it. Pins with a higher one are of a time when
// epochs were hashes.
const maxEpoch = 1 << 32

// unheard is how long pins to a canary hold on a router that no control plane has spoken to since it began with nothing: the
// usual lease of a rollout. A live rollout is renewed within it; without one, nobody would ever take the canary back here.
const unheard = 2 * time.Minute

// epochs say which pins are void. Now counts how often an agent's pins were voided. All routers of an agent count the same
// events; one that has missed some is told by the control plane (api.Route.Epoch), which joins what it sees by the maximum.
type epochs struct {
	now uint64
	// voided is what now became by the last rollback of the present rollout, 0 without one: older pins of this rollout are
	// void. That is less strict than now, so that a conversation which began on a router that lags behind keeps its pin.
	voided  uint64
	drained uint64 // voided as it was before that rollback: with Drain, pins since then finish
}

// void begins an epoch. If the control plane has seen a higher one, a sibling has been through this event already.
func (e *epochs) void(seen uint64) { e.now = max(e.now+1, seen) }

// rollback voids the pins to the canary.
func (e *epochs) rollback(seen uint64) {
	e.void(seen)
	e.drained, e.voided = e.voided, e.now
}

// rollout begins another owner's rollout. The pins of a new one nobody can have voided yet; those of one that comes back are of
// before.
func (e *epochs) rollout(back bool) {
	e.voided, e.drained = 0, 0
	if back {
		e.voided = e.now
	}
}

// join takes over a higher epoch, and reports whether seen was one.
func (e *epochs) join(seen uint64) bool {
	if seen <= e.now {
		return false
	}
	e.now = seen
	return true
}

// unheardUntil is when pins to a canary that no route has named end.
func (s *agentState) unheardUntil() time.Duration {
	if s.route.Owner != "" {
		return 1<<63 - 1
	}
	return s.born + unheard
}

// honours reports whether a conversation may stay where its genuine pin says.
//
//   - On stable, always.
//   - On the canary, if it began in this rollout (or when the canary was the stable version) and nobody has rolled back since;
//     while the lease holds, or with Drain until the deadline.
//   - On any other version, such as the stable one of before, unless pins were voided since. A later epoch than the router's own
//     was made by a router that knows more, and is believed.
func (a *agentTable) honours(c claims, now time.Duration) bool {
	if c.version == a.stable {
		return true
	}
	if c.epoch > maxEpoch {
		return false
	}
	if c.version != a.canary {
		return c.epoch >= a.epochs.now && (c.rollout == onStable || now < a.unheardUntil)
	}
	if c.rollout != a.salt && c.rollout != onStable {
		return false
	}
	if a.rollback {
		return a.policy == Drain && c.epoch >= a.epochs.drained && now < a.drainUntil
	}
	if c.rollout == onStable && c.epoch < a.epochs.now || c.epoch < a.epochs.voided {
		return false
	}
	if !a.leased || now < a.leaseUntil {
		return true
	}
	return a.policy == Drain && now < a.leaseUntil+a.drain
}

// renewed are the claims of the pin that follows an honoured one. On stable it begins anew; elsewhere it stays of its rollout and
// epoch, so that renewing can't make a void pin good.
func (a *agentTable) renewed(c claims) claims {
	if a.stale(c) {
		c.rollout, c.epoch = onStable, a.epochs.now
	}
	return c
}

// stale reports whether an honoured pin to stable should be renewed before its time: it would be void once another version is
// stable. One of a later epoch is left alone, as its maker knew more.
func (a *agentTable) stale(c claims) bool {
	return c.version == a.stable && (c.rollout != onStable || c.epoch < a.epochs.now || c.epoch > maxEpoch)
}
