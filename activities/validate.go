package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"go.temporal.io/sdk/activity"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// ValidateResult is what Validate finds out besides errors.
type ValidateResult struct {
	SearchAttributes bool `json:"search_attributes"` // the namespace knows Aviary's search attributes
	// Cursor is the position before any traffic moves, for the first Observe: nothing that the canary does is missed.
	Cursor json.RawMessage `json:"cursor,omitempty"`
}

// Validate refuses a rollout that can't work, before any traffic moves: its rules, this worker's targets, what the data plane
// says of the agent and its versions, another rollout of the same agent, and whether the metrics source answers. Errors:
// InvalidRollout, which is final; DriverError and ProviderError.
func (a *Activities) Validate(ctx context.Context, spec rollout.Spec) (ValidateResult, error) {
	defer a.meter.enter(spec.Agent, rollout.Validating)()
	if err := a.config.CheckSpec(spec); err != nil {
		return ValidateResult{}, invalid("%v", err)
	}
	wanted, _, _, err := a.judging(spec)
	if err != nil {
		return ValidateResult{}, err
	}
	if _, err := a.receivers(spec.Notify); err != nil {
		return ValidateResult{}, err
	}
	provider, err := a.provider(spec.Metrics.Provider, spec.Metrics.Target)
	if err != nil {
		return ValidateResult{}, err
	}
	if err := a.validateRoute(ctx, spec); err != nil {
		return ValidateResult{}, err
	}
	samples, err := within(ctx, sampleLimit, func(ctx context.Context) (metrics.Samples, error) {
		return provider.Sample(ctx, metrics.Request{Agent: spec.Agent, Stable: spec.Stable, Canary: spec.Canary, Metrics: wanted})
	})
	a.meter.source(spec.Metrics.Provider, spec.Metrics.Target, err)
	if err != nil {
		return ValidateResult{}, sourceError(err)
	}
	cursor, err := json.Marshal(progress{Version: progressVersion, Source: samples.Cursor})
	if err != nil {
		return ValidateResult{}, fmt.Errorf("encode the first position: %w", err)
	}
	return ValidateResult{SearchAttributes: a.config.SearchAttributes != nil && a.config.SearchAttributes(ctx), Cursor: cursor}, nil
}

// judging is what a Spec wants measured, how that is judged, and an engine that does. The error is InvalidRollout.
func (a *Activities) judging(spec rollout.Spec) ([]metrics.Metric, analysis.Config, *analysis.Engine, error) {
	config, err := a.config.Analysis(spec)
	if err != nil {
		return nil, config, nil, invalid("%v", err)
	}
	engine, err := analysis.New(config)
	if err != nil {
		return nil, config, nil, invalid("%v", err)
	}
	wanted := make([]metrics.Metric, len(config.Metrics))
	for i, m := range config.Metrics {
		wanted[i].Metric = m
		if d, ok := spec.Metrics.Definitions[m.Name]; ok {
			wanted[i].Definition = &d
		}
	}
	return wanted, config, engine, nil
}

func (a *Activities) validateRoute(ctx context.Context, spec rollout.Spec) error {
	driver, err := a.driver(spec.Traffic.Driver, spec.Traffic.Target)
	if err != nil {
		return err
	}
	if err := validateWeights(spec, driver.Capabilities()); err != nil {
		return err
	}
	seen, err := a.read(ctx, driver, rollout.Route{Driver: spec.Traffic.Driver, Target: spec.Traffic.Target, Agent: spec.Agent, Object: spec.Traffic.Object})
	if err != nil {
		return routeError(err)
	}
	return a.validateSeen(ctx, spec, seen)
}

// validateSeen refuses a rollout that does not fit what the data plane says.
func (a *Activities) validateSeen(ctx context.Context, spec rollout.Spec, seen traffic.Observed) error {
	if seen.Versions != nil {
		for _, version := range []string{spec.Stable, spec.Canary} {
			if !slices.Contains(seen.Versions, version) {
				return invalid("the data plane does not know version %s of %s, it has %s", version, spec.Agent, strings.Join(seen.Versions, ", "))
			}
		}
	}
	if seen.Stable != "" && seen.Stable != spec.Stable {
		return invalid("the stable version of %s is %s on the data plane, the rollout says %s", spec.Agent, seen.Stable, spec.Stable)
	}
	if i := slices.IndexFunc(spec.Stages, func(s rollout.Stage) bool { return s.Mirror > 0 }); i >= 0 && seen.SideEffects {
		return invalid("stage %s mirrors traffic, but the requests of %s have side effects, which copies would double", spec.Stages[i].Name, spec.Agent)
	}
	return a.validateOwner(ctx, seen)
}

func validateWeights(spec rollout.Spec, can traffic.Capabilities) error {
	for _, stage := range spec.Stages {
		if can.Step > 0 && stage.Weight%can.Step != 0 {
			return invalid("stage %s has weight %s, but %s can only set multiples of %s", stage.Name, stage.Weight, spec.Traffic.Driver, can.Step)
		}
		if stage.Mirror > 0 && !can.Mirror {
			return invalid("stage %s mirrors traffic, which %s can't", stage.Name, spec.Traffic.Driver)
		}
	}
	return nil
}

// validateOwner refuses an agent that another rollout holds. An owner of this rollout's own workflow ID is this rollout, or one
// before it, which is over.
func (a *Activities) validateOwner(ctx context.Context, seen traffic.Observed) error {
	if seen.Owner == "" {
		return nil
	}
	workflowID, firstRun, ours := splitOwner(seen.Owner)
	if !ours {
		if seen.Exposed() && !seen.LeaseExpired {
			return invalid("%s has a canary already: %s at %s, held by %s", seen.Agent, seen.Canary, seen.Weight, seen.Owner)
		}
		return nil
	}
	if workflowID == activity.GetInfo(ctx).WorkflowExecution.ID {
		return nil
	}
	open, err := a.open(ctx, workflowID, firstRun)
	if err != nil {
		return retry(rollout.ErrDriver, fmt.Errorf("look up who holds %s: %w", seen.Agent, err), 0)
	}
	if open {
		return invalid("%s is in a rollout already: %s", seen.Agent, workflowID)
	}
	return nil
}
