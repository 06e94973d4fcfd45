package activities

import (
	"context"
	"errors"

	"go.temporal.io/sdk/activity"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// SetWeight makes route the state of its agent and returns once that has been read back. Errors: OwnershipLost and
// InvalidRollout, which are final, and DriverError.
func (a *Activities) SetWeight(ctx context.Context, route rollout.Route) error {
	defer a.meter.enter(route.Agent, rollout.Shifting)()
	return routeError(a.apply(ctx, route))
}

// Finalize makes the canary the stable version. Errors as of SetWeight.
func (a *Activities) Finalize(ctx context.Context, route rollout.Route) error {
	defer a.meter.enter(route.Agent, rollout.Promoting)()
	return routeError(a.apply(ctx, route))
}

// Restore gives all traffic back to stable. A refusal is retried like any fault, because what can't be restored now may be
// later: only OwnershipLost is final, and InvalidRollout for an agent or a target that does not exist at all.
func (a *Activities) Restore(ctx context.Context, route rollout.Route) error {
	defer a.meter.enter(route.Agent, rollout.Restoring)()
	err := a.apply(ctx, route)
	var lost *traffic.OwnershipLost
	if errors.As(err, &lost) && lost.Owner == route.Owner && lost.Revision >= route.Revision {
		// The route is this rollout's own, from before the workflow was reset: stable comes first.
		route.Revision = lost.Revision + 1
		err = a.apply(ctx, route)
	}
	if err == nil {
		a.meter.restored(a.clock.Now().Sub(activity.GetInfo(ctx).ScheduledTime))
		return nil
	}
	var rejected *traffic.Rejected
	if errors.As(err, &rejected) && !a.unknown(ctx, route) {
		return retry(rollout.ErrDriver, err, 0)
	}
	return routeError(err)
}

// unknown reports whether the data plane says that it does not know the agent.
func (a *Activities) unknown(ctx context.Context, route rollout.Route) bool {
	driver, err := a.driver(route.Driver, route.Target)
	if err != nil {
		return true
	}
	_, err = a.read(ctx, driver, route)
	var rejected *traffic.Rejected
	return errors.As(err, &rejected)
}

func (a *Activities) apply(ctx context.Context, route rollout.Route) error {
	driver, err := a.driver(route.Driver, route.Target)
	if err != nil {
		return err
	}
	_, err = within(ctx, applyLimit, func(ctx context.Context) (struct{}, error) {
		return struct{}{}, driver.Apply(ctx, route)
	})
	a.meter.driver(route.Driver, route.Target, err)
	return err
}

func (a *Activities) read(ctx context.Context, driver traffic.Driver, route rollout.Route) (traffic.Observed, error) {
	seen, err := within(ctx, readLimit, func(ctx context.Context) (traffic.Observed, error) {
		return driver.Read(ctx, route)
	})
	a.meter.driver(route.Driver, route.Target, err)
	return seen, err
}
