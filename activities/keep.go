package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// keep renews the canary's lease, and looks whether somebody else changed the route: the first time it is put back, and told; the
// second time within an hour it is left for a human. While such a change waits for a human, the route is left alone.
func (o *observer) keep(ctx context.Context) (rollout.Finding, string) {
	if o.request.Drifted {
		return "", ""
	}
	o.kept = o.now
	route := o.request.Route
	seen, unread := o.a.read(ctx, o.driver, route)
	drift := ""
	if unread == nil {
		drift, o.replaced = difference(seen, route), seen.Changed
		if drift != "" && seen.ChangedBy != "" {
			drift += ", by " + seen.ChangedBy
		}
	}
	if drift != "" && !o.p.PutBack.IsZero() && o.now.Sub(o.p.PutBack) < driftMemory {
		o.p.PutBack = time.Time{}
		return rollout.FoundDrift, "somebody else changed the weights again: " + drift
	}
	err := unread
	if route.Lease > 0 || drift != "" || unread != nil || len(seen.Lagging) > 0 {
		_, err = within(ctx, renewLimit, func(ctx context.Context) (struct{}, error) { return struct{}{}, o.driver.Apply(ctx, route) })
		o.a.meter.driver(route.Driver, route.Target, err)
	}
	if ctx.Err() != nil {
		return "", ""
	}
	var lost *traffic.OwnershipLost
	switch {
	case errors.As(err, &lost):
		return rollout.FoundLost, "the route was taken over: " + lost.Error()
	case err != nil:
		o.planeFailed(err)
		return "", ""
	}
	o.p.Kept, o.p.Plane, o.p.Slice.PlaneDown = o.now, time.Time{}, ""
	if unread == nil && seen.LeaseExpired {
		o.comesBack()
	}
	if drift != "" {
		o.log.Warn("somebody else changed the weights, they were put back", "found", drift)
		o.p.PutBack, o.p.Slice.PutBack = o.now, drift
	}
	return "", ""
}

func (o *observer) planeFailed(err error) {
	p := &o.p
	if p.Plane.IsZero() {
		p.Plane = o.now
		o.log.Warn("the data plane does not answer", "error", err)
	}
	limit := planeDown
	if lease := o.request.Route.Lease.Std(); lease > 0 {
		limit = lease / 2
	}
	if o.now.Sub(p.Plane) >= limit {
		p.Slice.PlaneDown = bare(err)
	}
}

// difference says how the data plane's state is not the one that was set. Another owner is none: the data plane itself says
// whether that one lives. A lease that ran out is none either: the next renewal brings the canary back.
func difference(seen traffic.Observed, route rollout.Route) string {
	switch {
	case seen.Owner != "" && seen.Owner != route.Owner:
		return ""
	case seen.Weight != route.Weight:
		return fmt.Sprintf("weight %s instead of %s", seen.Weight, route.Weight)
	case seen.Mirror != route.Mirror && !seen.LeaseExpired:
		return fmt.Sprintf("mirror %s instead of %s", seen.Mirror, route.Mirror)
	case seen.Stable != "" && seen.Stable != route.Stable:
		return fmt.Sprintf("stable version %s instead of %s", seen.Stable, route.Stable)
	case seen.Drift != "":
		return seen.Drift
	case route.Exposed() && seen.Canary != route.Canary:
		return fmt.Sprintf("canary %q instead of %s", seen.Canary, route.Canary)
	}
	return ""
}
