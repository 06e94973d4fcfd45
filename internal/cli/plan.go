package cli

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/plan"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// Poll is what two versions did between two moments, as the statistics take it.
type Poll = analysis.Poll

// PresentQuery asks a metrics target what two versions do now.
type PresentQuery struct {
	Target         config.MetricsTarget
	Agent          string
	Stable, Canary string
	Metrics        []analysis.Metric
	Definitions    map[string]rollout.Definition // of metrics that are no presets
	Window         time.Duration                 // to look at: of the past where the source keeps it, else to wait for
	Step           time.Duration                 // of a poll at least
	Now            time.Time
}

// planning is the flags of plan.
type planning struct {
	rps       float64
	rpsGiven  bool
	bases     []string
	source    calibrating // where from, as calibrate
	window    time.Duration
	strict    bool
	overrides *config.Overrides
}

func (a *app) plan() *cobra.Command {
	var c planning
	cmd := &cobra.Command{
		Use: "plan FILE", Short: "Foretell what a rollout can see at a traffic, and how long it takes", GroupID: groupFile, Args: one("FILE"),
		Long: `Foretell what the rollout in FILE can see: how long each stage takes, which regressions it rules out, how soon it catches one,
how often it takes back or holds a canary that is fine, and whether it can decide at all.

  starter plan rollout.yaml --rps 20
  starter plan rollout.yaml --rps 20 --base error_rate=0.02 --base cost_per_task=0.04,spread=1.2

What is not given is assumed, and marked so. Or what stable does now is read: from Prometheus's last minutes
(--prometheus URL, with credentials as for calibrate), or from a target of the worker's settings (--worker worker.yaml), which
takes the time of --window where the source keeps no past.`,
	}
	c.overrides = overrides(cmd)
	flags := cmd.Flags()
	flags.Float64Var(&c.rps, "rps", 0, "requests a second of both versions together, as a `number`")
	flags.StringArrayVar(&c.bases, "base", nil, "what stable does, as `METRIC=VALUE[,spread=S][,share=R][,width=W]`: a fraction, a mean, or a quantile in seconds; "+
		"its coefficient of variation or the sigma of its logarithm; trials per request; how wide the histogram's buckets are (0.1 is 10 %)")
	flags.StringVar(&c.source.prometheus, "prometheus", "", "`URL` of a Prometheus to read what stable does from, without credentials")
	flags.StringVar(&c.source.worker, "worker", "", "`file` of a worker's settings, whose target is asked")
	flags.StringVar(&c.source.target, "target", "", "`name` of the metrics target in --worker; the rollout's unless given")
	flags.DurationVar(&c.window, "window", 10*time.Minute, "`time` to look at what stable does, such as 10m")
	flags.BoolVar(&c.strict, "strict", false, "fail (exit code 1) if the rollout can't decide")
	cmd.MarkFlagsMutuallyExclusive("prometheus", "worker")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		c.rpsGiven = cmd.Flags().Changed("rps")
		return a.runPlan(cmd.Context(), args[0], c)
	}
	return cmd
}

func (a *app) runPlan(ctx context.Context, file string, c planning) error {
	spec, err := load(file, *c.overrides)
	if err != nil {
		return err
	}
	cfg, err := config.AnalysisConfig(spec)
	if err != nil {
		return usageError{badFile{fmt.Errorf("%s: %w", file, err)}}
	}
	if err := c.check(); err != nil {
		return usageError{err}
	}
	given, err := c.given(cfg.Metrics)
	if err != nil {
		return usageError{err}
	}
	traffic, notes, err := a.present(ctx, c, spec, cfg)
	if err != nil {
		return err
	}
	if c.rpsGiven {
		traffic.RPS = c.rps
	}
	maps.Copy(traffic.Metrics, given)
	p, err := plan.For(planned(spec, cfg), traffic)
	if err != nil {
		return fmt.Errorf("plan %s: %w", file, err)
	}
	p.Warnings = append(p.Warnings, notes...)
	if err := a.emit(p, func() { a.say("%s", strings.Join(a.screen().plan(spec, p), "\n")) }); err != nil {
		return err
	}
	if c.strict && !p.Decides {
		return fmt.Errorf("--strict: the rollout in %s can't decide at this traffic:\n  %s", file, strings.Join(p.Undecided, "\n  "))
	}
	return nil
}

const (
	leastWindow = 10 * time.Second
	mostWindow  = 31 * 24 * time.Hour
	mostRPS     = 1e9
)

// check is for the flags that have no metric.
func (c planning) check() error {
	reads := c.source.prometheus != "" || c.source.worker != ""
	var errs []error
	if !c.rpsGiven && !reads {
		errs = append(errs, errors.New("how much traffic is there? Want --rps NUMBER (requests a second of both versions), or a source to read it from: --prometheus URL or --worker FILE"))
	}
	if c.rpsGiven && !(c.rps > 0 && c.rps <= mostRPS) { // true for NaN
		errs = append(errs, fmt.Errorf("--rps %v: want a number above 0 and up to %v", c.rps, mostRPS))
	}
	if c.window < leastWindow || c.window > mostWindow {
		errs = append(errs, fmt.Errorf("--window %s: want a time from %s to %s", c.window, leastWindow, rollout.Duration(mostWindow)))
	}
	if c.source.target != "" && c.source.worker == "" {
		errs = append(errs, errors.New("--target is of --worker, and none is given"))
	}
	return errors.Join(errs...)
}

// given are the bases of the flags.
func (c planning) given(known []analysis.Metric) (map[string]plan.Base, error) {
	out := map[string]plan.Base{}
	var errs []error
	for _, text := range c.bases {
		name, b, err := baseOf(text, known)
		if err == nil && out[name] != (plan.Base{}) {
			err = fmt.Errorf("%s is there twice", name)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("--base %s: %w", clean(text), err))
			continue
		}
		out[name] = b
	}
	return out, errors.Join(errs...)
}

const baseForm = "METRIC=VALUE[,spread=S][,share=R][,width=W]"

// baseOf reads one base.
func baseOf(text string, known []analysis.Metric) (string, plan.Base, error) {
	first, rest, _ := strings.Cut(text, ",")
	name, value, found := strings.Cut(first, "=")
	if !found {
		return "", plan.Base{}, fmt.Errorf("want %s", baseForm)
	}
	if c, err := analysis.ParseCheck(name + " < 1"); err == nil { // some names may be short
		name = c.Metric
	}
	i := slices.IndexFunc(known, func(m analysis.Metric) bool {
		return m.Name == name && m.Kind != analysis.Value && name != analysis.TotalRequests
	})
	if i < 0 {
		return "", plan.Base{}, fmt.Errorf("%q is not tested by this rollout, want one of %s", name, strings.Join(testedNames(known), ", "))
	}
	b := plan.DefaultBase(known[i])
	b.Assumed = false
	parts := map[string]*float64{"spread": &b.Spread, "share": &b.Share, "width": &b.Width}
	if err := readNumber(value, &b.Value); err != nil {
		return "", b, err
	}
	for part := range strings.SplitSeq(rest, ",") {
		if rest == "" {
			break
		}
		key, value, _ := strings.Cut(part, "=")
		at := parts[key]
		if at == nil {
			return "", b, fmt.Errorf("%q: want %s", part, baseForm)
		}
		if err := readNumber(value, at); err != nil {
			return "", b, err
		}
		if key == "share" && b.Share == 0 {
			return "", b, fmt.Errorf("share 0: want trials per request, above 0")
		}
	}
	return name, b, b.Validate(known[i])
}

func readNumber(text string, to *float64) error {
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsNaN(x) || math.IsInf(x, 0) {
		return fmt.Errorf("%q is not a number, want %s", text, baseForm)
	}
	*to = x
	return nil
}

// testedNames are the metrics that can have a base.
func testedNames(known []analysis.Metric) []string {
	var out []string
	for _, m := range known {
		if m.Kind != analysis.Value && m.Name != analysis.TotalRequests {
			out = append(out, m.Name)
		}
	}
	return out
}

// present is what the source says that stable does, or nothing without one.
func (a *app) present(ctx context.Context, c planning, spec rollout.Spec, cfg analysis.Config) (plan.Traffic, []string, error) {
	if c.source.prometheus == "" && c.source.worker == "" {
		return plan.Traffic{Metrics: map[string]plan.Base{}}, nil, nil
	}
	target, err := a.pastTarget(c.source, spec)
	if err != nil {
		return plan.Traffic{}, nil, usageError{err}
	}
	if a.Present == nil {
		return plan.Traffic{}, nil, errors.New("this starter reads no metrics source, want --rps")
	}
	if target.Provider != config.ProviderPrometheus {
		a.warn("counting what %s does for %s", spec.Agent, c.window)
	}
	polls, read, err := a.Present(ctx, PresentQuery{
		Target: target, Agent: spec.Agent, Stable: spec.Stable, Canary: spec.Canary, Metrics: cfg.Metrics, Definitions: spec.Metrics.Definitions,
		Window: c.window, Step: spec.Metrics.Interval.Std(), Now: a.Clock.Now(),
	})
	if err != nil {
		return plan.Traffic{}, nil, fmt.Errorf("read what %s does: %w", spec.Agent, err)
	}
	traffic, notes, err := plan.Measure(cfg.Metrics, polls, c.window)
	if errors.Is(err, plan.ErrNoTraffic) && c.rpsGiven {
		return plan.Traffic{Metrics: map[string]plan.Base{}}, []string{fmt.Sprintf("%s %s had no traffic in %s: everything but --rps is assumed", spec.Agent, spec.Stable, c.window)}, nil
	}
	if err != nil {
		return plan.Traffic{}, nil, fmt.Errorf("read what %s %s does in %s (%s): %w; give it as --rps, or look for longer with --window", spec.Agent, spec.Stable, c.window, read, err)
	}
	return traffic, notes, nil
}

// planned is the rollout as plan knows it.
func planned(spec rollout.Spec, cfg analysis.Config) plan.Rollout {
	r := plan.Rollout{Config: cfg, Criticality: plan.Criticality(spec.Criticality), Interval: spec.Metrics.Interval.Std()}
	if s := spec.Analysis.Settle; s != nil {
		r.Settle = new(s.Std())
	}
	for _, s := range spec.Stages {
		r.Stages = append(r.Stages, plan.Stage{
			Name: s.Name, Weight: int(s.Exposure()), Duration: s.Duration.Std(), MaxHold: s.MaxHold.Std(), MinRequests: s.MinRequests,
			Approval: s.Approval == rollout.ApprovalRequired,
		})
	}
	return r
}
