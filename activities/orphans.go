package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"

	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Orphans are the routes that give traffic back which the data planes still send to a canary whose rollout is over: its
// workflow is closed or gone. A data plane that does not answer, and a rollout that Temporal does not tell of now, are left for
// the next time; so are owners that are not Aviary's.
func (a *Activities) Orphans(ctx context.Context) ([]rollout.Route, error) {
	// One dead data plane must not keep the others from being swept: all at once, and what is found in time counts.
	looking, cancel := context.WithTimeout(ctx, orphansLimit)
	defer cancel()
	var mu sync.Mutex
	var out []rollout.Route
	var planes sync.WaitGroup
	for kind, targets := range a.config.Drivers {
		for target, driver := range targets {
			planes.Go(func() {
				found := a.orphansOf(looking, kind, target, driver)
				mu.Lock()
				defer mu.Unlock()
				out = append(out, found...)
			})
		}
	}
	planes.Wait()
	slices.SortFunc(out, func(x, y rollout.Route) int {
		return cmp.Or(cmp.Compare(x.Driver, y.Driver), cmp.Compare(x.Target, y.Target), cmp.Compare(x.Agent, y.Agent))
	})
	return out, ctx.Err()
}

// orphansLimit bounds a whole look for orphans; the activity has a minute.
const orphansLimit = 45 * time.Second

func (a *Activities) orphansOf(ctx context.Context, kind, target string, driver traffic.Driver) []rollout.Route {
	log := activity.GetLogger(ctx)
	agents, err := within(ctx, listLimit, driver.List)
	a.meter.driver(kind, target, err)
	if err != nil {
		log.Warn("a data plane can't be swept", "driver", kind, "target", target, "error", err)
		return nil
	}
	var out []rollout.Route
	for _, seen := range agents {
		over, err := a.over(ctx, seen)
		if err != nil {
			log.Warn("an owner can't be looked up", "agent", seen.Agent, "owner", seen.Owner, "error", err)
		}
		if over {
			out = append(out, back(kind, target, seen))
		}
	}
	return out
}

// back is the route that takes seen's canary out of traffic. Its revision is the next one, so that a new owner who came in
// between keeps what it has.
func back(kind, target string, seen traffic.Observed) rollout.Route {
	return rollout.Route{
		Driver: kind, Target: target, Agent: seen.Agent, Stable: seen.Stable, Canary: seen.Canary,
		Owner: seen.Owner, Revision: seen.Revision + 1, OnRollback: rollout.Evict, Rollback: true,
		Object: seen.Object,
	}
}

// over reports whether a canary gets requests and its rollout is over.
func (a *Activities) over(ctx context.Context, seen traffic.Observed) (bool, error) {
	workflowID, firstRun, ours := splitOwner(seen.Owner)
	if !seen.Exposed() || !ours {
		return false, nil
	}
	open, err := a.open(ctx, workflowID, firstRun)
	return err == nil && !open, err
}

// open reports whether the chain of runs that began with firstRun still goes on.
func (a *Activities) open(ctx context.Context, workflowID, firstRun string) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupLimit)
	defer cancel()
	answer, err := a.config.Workflows.DescribeWorkflowExecution(ctx, workflowID, "")
	var gone *serviceerror.NotFound
	switch {
	case errors.As(err, &gone):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("describe workflow %s: %w", workflowID, err)
	}
	info := answer.GetWorkflowExecutionInfo()
	switch info.GetStatus() {
	case enums.WORKFLOW_EXECUTION_STATUS_UNSPECIFIED:
		return false, fmt.Errorf("describe workflow %s: the answer has no status", workflowID)
	case enums.WORKFLOW_EXECUTION_STATUS_RUNNING, enums.WORKFLOW_EXECUTION_STATUS_PAUSED,
		enums.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW: // the next run of the chain is about to begin
		// A server that does not tell the first run is given the benefit of the doubt.
		return info.GetFirstRunId() == "" || info.GetFirstRunId() == firstRun, nil
	}
	return false, nil
}

// splitOwner takes an owner of Aviary's apart: canary/AGENT/FIRST-RUN-ID.
func splitOwner(owner string) (workflowID, firstRun string, ours bool) {
	at := strings.LastIndex(owner, "/")
	if at < 0 || !strings.HasPrefix(owner, "canary/") {
		return "", "", false
	}
	workflowID, firstRun = owner[:at], owner[at+1:]
	_, err := uuid.Parse(firstRun)
	return workflowID, firstRun, err == nil && rollout.ValidName(strings.TrimPrefix(workflowID, "canary/"))
}
