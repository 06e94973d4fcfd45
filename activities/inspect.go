package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"

	"github.com/aviary-rollouts/aviary/activities/metrics"
	"github.com/aviary-rollouts/aviary/activities/traffic"
	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// How long Inspect counts requests to show that the numbers come in, and how often it looks.
const (
	inspectWindow = 20 * time.Second
	inspectEvery  = 2 * time.Second
)

// Inspect looks at everything that a rollout would need, from where it would run, and says all that it found. It changes nothing. The
// error is only that of ctx.
func (a *Activities) Inspect(ctx context.Context, spec rollout.Spec) ([]rollout.Remark, error) {
	var remarks remarks
	if err := a.config.CheckSpec(spec); err != nil {
		for _, line := range strings.Split(err.Error(), "\n") {
			path, text, ok := strings.Cut(line, ": ")
			if !ok {
				path, text = "", line
			}
			remarks.add(rollout.RemarkError, path, "%s", text)
		}
		return remarks, nil // what follows would say the same in other words
	}
	a.inspectRoute(ctx, spec, &remarks)
	a.inspectMetrics(ctx, spec, &remarks)
	if _, err := a.receivers(spec.Notify); err != nil {
		remarks.fail("notify", err)
	}
	return remarks, ctx.Err()
}

type remarks []rollout.Remark

func (r *remarks) add(level rollout.RemarkLevel, path, format string, args ...any) {
	*r = append(*r, rollout.Remark{Level: level, Path: path, Text: fmt.Sprintf(format, args...)})
}

// fail adds an error, without the addresses that it may hold.
func (r *remarks) fail(path string, err error) {
	text := bare(err)
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		text = app.Message()
	}
	r.add(rollout.RemarkError, path, "%s", text)
}

func (a *Activities) inspectRoute(ctx context.Context, spec rollout.Spec, r *remarks) {
	t := spec.Traffic
	driver, err := a.driver(t.Driver, t.Target)
	if err != nil {
		r.fail("traffic.target", err)
		return
	}
	if err := validateWeights(spec, driver.Capabilities()); err != nil {
		r.fail("canary_stages", err)
	}
	route := rollout.Route{Driver: t.Driver, Target: t.Target, Agent: spec.Agent, Stable: spec.Stable, Canary: spec.Canary, Object: t.Object}
	if inspector, ok := driver.(traffic.Inspector); ok {
		found, err := within(ctx, applyLimit, func(ctx context.Context) ([]rollout.Remark, error) { return inspector.Inspect(ctx, route), nil })
		*r = append(*r, found...)
		if err != nil {
			r.fail("traffic", err)
		}
	}
	seen, err := a.read(ctx, driver, route)
	if err != nil {
		r.fail("traffic", err)
		return
	}
	if err := a.validateSeen(ctx, spec, seen); err != nil {
		r.fail("traffic", err)
		return
	}
	switch {
	case len(seen.Lagging) > 0:
		r.add(rollout.RemarkWarning, "traffic", "not all replicas agree or answer: %s", strings.Join(seen.Lagging, ", "))
	case seen.Drift != "":
		r.add(rollout.RemarkWarning, "traffic", "%s", seen.Drift)
	}
	r.add(rollout.RemarkOK, "traffic", "%s %s answers: %s has %s", t.Driver, t.Target, spec.Agent, shares(seen))
}

// shares says who gets what now.
func shares(seen traffic.Observed) string {
	stable := seen.Stable
	if stable == "" {
		stable = "stable"
	}
	if seen.Effective == 0 {
		return "all traffic on " + stable
	}
	return fmt.Sprintf("%s of its traffic on %s", seen.Effective, cmp.Or(seen.Canary, "the place where no rollout has put it: somebody has changed the weights"))
}

func (a *Activities) inspectMetrics(ctx context.Context, spec rollout.Spec, r *remarks) {
	wanted, _, _, err := a.judging(spec)
	if err != nil {
		r.fail("canary_stages", err)
		return
	}
	m := spec.Metrics
	provider, err := a.provider(m.Provider, m.Target)
	if err != nil {
		r.fail("metrics.target", err)
		return
	}
	sample := func(cursor json.RawMessage, wanted ...metrics.Metric) (metrics.Samples, error) {
		samples, err := within(ctx, sampleLimit, func(ctx context.Context) (metrics.Samples, error) {
			return provider.Sample(ctx, metrics.Request{Agent: spec.Agent, Stable: spec.Stable, Canary: spec.Canary, Metrics: wanted, Cursor: cursor})
		})
		a.meter.source(m.Provider, m.Target, err)
		return samples, err
	}
	// Each alone, so that one that can't be had does not hide the others.
	good := slices.DeleteFunc(slices.Clone(wanted), func(w metrics.Metric) bool {
		_, err := sample(nil, w)
		if err != nil {
			r.fail("metrics: "+w.Name, fmt.Errorf("%s %s: %w", m.Provider, m.Target, err))
		}
		return err != nil
	})
	if len(good) == 0 || ctx.Err() != nil {
		return
	}
	first, err := sample(nil, good...)
	if err != nil {
		r.fail("metrics", err)
		return
	}
	began := a.clock.Now()
	var last metrics.Samples
	for last.Requests.Stable == 0 && a.clock.Now().Sub(began) < inspectWindow {
		select {
		case <-ctx.Done():
			return
		case <-a.clock.After(inspectEvery):
		}
		if last, err = sample(first.Cursor, good...); err != nil {
			r.fail("metrics", err)
			return
		}
	}
	cameIn(spec, good, last, a.clock.Now().Sub(began).Round(time.Second), r)
}

// cameIn says what came in of stable, metric by metric. The canary has no traffic yet.
func cameIn(spec rollout.Spec, wanted []metrics.Metric, last metrics.Samples, window time.Duration, r *remarks) {
	if last.Requests.Stable == 0 {
		r.add(rollout.RemarkWarning, "metrics", "%s %s answers, and tells of no request to %s %s in %s: does it have traffic, under these names?",
			spec.Metrics.Provider, spec.Metrics.Target, spec.Agent, spec.Stable, window)
		return
	}
	r.add(rollout.RemarkOK, "metrics", "%s %s answers: %.0f requests to %s %s in %s", spec.Metrics.Provider, spec.Metrics.Target, last.Requests.Stable,
		spec.Agent, spec.Stable, window)
	for _, w := range wanted {
		counts := last.Metrics[w.Name].Stable
		// A count of nothing is a number, too: there may have been no safety violation.
		some := w.Kind == analysis.Count || counts.HasValue || counts.N > 0 || slices.ContainsFunc(counts.Buckets, func(n float64) bool { return n > 0 })
		if some {
			continue
		}
		r.add(rollout.RemarkWarning, "metrics: "+w.Name, "no values of %s in %s, so nothing can be said of it", spec.Stable, window)
	}
}
