package cli

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/rollout"
)

// PastQuery asks a metrics target for one version's past.
type PastQuery struct {
	Target         config.MetricsTarget
	Agent, Version string
	Metrics        []analysis.Metric
	Definitions    map[string]rollout.Definition // of metrics that are no presets
	From, To       time.Time
	Step           time.Duration // of a poll at least
	UnitLabel      string        // empty: units are not told apart
	Users          bool          // the label's values are users
}

// History is a version's past, as calibration takes it.
type History = calibration.History

// The environment variables that hold credentials for --prometheus.
const (
	promToken    = "AVIARY_PROMETHEUS_TOKEN" //nolint:gosec // the name of a variable, no secret
	promUser     = "AVIARY_PROMETHEUS_USER"
	promPassword = "AVIARY_PROMETHEUS_PASSWORD" //nolint:gosec // the name of a variable, no secret
)

// calibrating is the flags of calibrate.
type calibrating struct {
	prometheus, worker, target, csv string
	version, last, until            string
	unitLabel, userLabel            string
	replays                         int
	seed                            uint64
	out                             string
	force                           bool
	overrides                       *config.Overrides
}

func (a *app) calibrate() *cobra.Command {
	var c calibrating
	cmd := &cobra.Command{
		Use: "calibrate FILE", Short: "Learn from history what chance does to identical versions", GroupID: groupFile, Args: one("FILE"),
		Long: `Learn from one version's history how much identical versions differ by chance, and what the rollout in FILE would make of it:
base rates, overdispersion, cohort spread, false rollbacks, how soon regressions are caught. It ends with settings to paste into FILE.

The history comes from Prometheus:

  starter calibrate rollout.yaml --prometheus http://prometheus:9090 --last 14d --unit-label pod

with credentials in ` + promToken + ` (bearer), or ` + promUser + ` and ` + promPassword + ` (basic), or from a
target of the worker's settings (--worker worker.yaml --target default); or from a file of polls (--csv polls.csv) with the columns

  time,unit,metric,n,x,le:0.5,le:1

time is the end of a poll; unit (an instance) or user may be absent; n and x are what the counters grew by: trials and events, or
observations and their sum; x is empty for a quantile, and le:B are its observations up to B.`,
	}
	c.overrides = overrides(cmd)
	flags := cmd.Flags()
	flags.StringVar(&c.prometheus, "prometheus", "", "`URL` of a Prometheus, without credentials")
	flags.StringVar(&c.worker, "worker", "", "`file` of a worker's settings, whose target is asked")
	flags.StringVar(&c.target, "target", "", "`name` of the metrics target in --worker; the rollout's unless given")
	flags.StringVar(&c.csv, "csv", "", "`file` of polls")
	flags.StringVar(&c.version, "version", "", "the `version` whose history is read; the rollout's stable unless given")
	flags.StringVar(&c.last, "last", defaultLast, "`time` to look back, such as 14d or 36h")
	flags.StringVar(&c.until, "until", "", "end of the history as a `time` such as 2026-03-01T12:00:00Z; now unless given")
	flags.StringVar(&c.unitLabel, "unit-label", "", "`label` that tells instances apart, such as pod or instance")
	flags.StringVar(&c.userLabel, "user-label", "", "`label` that tells users or sessions apart")
	flags.IntVar(&c.replays, "replays", 100, "`number` of pseudo-rollouts, 100 or more")
	flags.Uint64Var(&c.seed, "seed", 1, "`number` that chance is drawn from; the same gives the same answer")
	flags.StringVar(&c.out, "out", "", "`file` to write the settings to, in place of printing them")
	flags.BoolVar(&c.force, "force", false, "replace the file of --out if there is one")
	cmd.MarkFlagsMutuallyExclusive("prometheus", "worker", "csv")
	cmd.MarkFlagsMutuallyExclusive("unit-label", "user-label")
	cmd.MarkFlagsOneRequired("prometheus", "worker", "csv")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.runCalibrate(cmd.Context(), args[0], c) }
	return cmd
}

func (a *app) runCalibrate(ctx context.Context, file string, c calibrating) error {
	if c.replays < 100 || c.replays > 10_000 {
		return usageError{fmt.Errorf("--replays %d: want 100 to 10000", c.replays)}
	}
	if err := c.fits(file); err != nil {
		return usageError{err}
	}
	spec, err := load(file, *c.overrides)
	if err != nil {
		return err
	}
	cfg, err := config.AnalysisConfig(spec)
	if err != nil {
		return usageError{badFile{fmt.Errorf("%s: %w", file, err)}}
	}
	history, read, err := a.past(ctx, c, spec)
	if err != nil {
		return err
	}
	result, err := calibration.Calibrate(history, replayed(spec, cfg), calibration.Options{Replays: c.replays, Seed: c.seed})
	if err != nil {
		return fmt.Errorf("calibrate %s: %w", file, err)
	}
	foretold, err := foretell(spec, cfg, result)
	if err != nil {
		return err
	}
	fragment, err := fragmentOf(result)
	if err != nil {
		return err
	}
	if c.out != "" {
		if err := c.write(fragment); err != nil {
			return fmt.Errorf("write the settings: %w", err)
		}
	}
	return a.emit(calibrated{result, foretold}, func() {
		a.say("%s", strings.Join(append(a.screen().calibration(spec, c.versionOf(spec), read, result), a.screen().foretold(foretold)...), "\n"))
		if c.out != "" {
			a.say("\nThe settings are in %s.", c.out)
		} else {
			a.say("\nSettings to put into %s:\n\n%s", file, strings.TrimRight(string(fragment), "\n"))
		}
	})
}

// fits reports flags that mean nothing together, and an --out that would destroy what is read.
func (c calibrating) fits(file string) error {
	if c.csv != "" {
		for _, f := range []struct {
			name  string
			given bool
		}{
			{"last", c.last != defaultLast}, {"until", c.until != ""}, {"version", c.version != ""}, {"unit-label", c.unitLabel != ""}, {"user-label", c.userLabel != ""},
		} {
			if f.given {
				return fmt.Errorf("--%s is for a metrics source; a file of polls (--csv) is taken whole", f.name)
			}
		}
	}
	if c.target != "" && c.worker == "" {
		return errors.New("--target is of --worker, and none is given")
	}
	if c.out == "" {
		if c.force {
			return errors.New("--force is for --out")
		}
		return nil
	}
	old, err := os.Stat(c.out)
	if err != nil {
		return nil // there is none, or the writing will say what is wrong
	}
	for _, input := range []string{file, c.csv, c.worker} {
		if in, err := os.Stat(input); input != "" && err == nil && os.SameFile(in, old) {
			return fmt.Errorf("--out %s: that is %s, which is read: want another file", c.out, input)
		}
	}
	if !c.force {
		return fmt.Errorf("--out %s: there is such a file: want a new one, or --force", c.out)
	}
	return nil
}

// write writes the settings to a new file, or with --force over an old one.
func (c calibrating) write(settings []byte) error {
	how := os.O_WRONLY | os.O_CREATE | os.O_EXCL
	if c.force {
		how = os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	f, err := os.OpenFile(c.out, how, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(settings)
	return errors.Join(err, f.Close())
}

// replayed is the rollout as calibration knows it.
func replayed(spec rollout.Spec, cfg analysis.Config) calibration.Rollout {
	r := calibration.Rollout{Config: cfg}
	for _, s := range spec.Stages {
		r.Stages = append(r.Stages, calibration.Stage{Name: s.Name, Weight: int(s.Exposure()), Duration: s.Duration.Std(), MinRequests: s.MinRequests})
	}
	return r
}

func (c calibrating) versionOf(spec rollout.Spec) string {
	if c.version != "" {
		return c.version
	}
	return spec.Stable
}

// past reads the history from where the flags say, and says what was read.
func (a *app) past(ctx context.Context, c calibrating, spec rollout.Spec) (*History, string, error) {
	known := knownMetrics(spec)
	if c.csv != "" {
		f, err := os.Open(c.csv)
		if err != nil {
			return nil, "", usageError{err}
		}
		defer f.Close()
		h, err := calibration.ReadCSV(filepath.Base(c.csv), f, known)
		var bad calibration.Problems
		if errors.As(err, &bad) {
			return nil, "", usageError{badFile{bad}}
		}
		return h, "polls of " + filepath.Base(c.csv), err
	}
	q := PastQuery{
		Agent: spec.Agent, Version: c.versionOf(spec), Definitions: spec.Metrics.Definitions, Step: spec.Metrics.Interval.Std(),
		UnitLabel: c.unitLabel + c.userLabel, Users: c.userLabel != "",
	}
	cfg, err := config.AnalysisConfig(spec)
	if err != nil {
		return nil, "", err
	}
	q.Metrics = cfg.Metrics
	if q.From, q.To, err = c.window(a.Clock.Now()); err != nil {
		return nil, "", usageError{err}
	}
	if q.Target, err = a.pastTarget(c, spec); err != nil {
		return nil, "", usageError{err}
	}
	if a.Past == nil {
		return nil, "", errors.New("this starter reads no metrics source, want --csv")
	}
	h, read, err := a.Past(ctx, q)
	if err != nil {
		return nil, "", fmt.Errorf("read the past of %s %s: %w", q.Agent, q.Version, err)
	}
	return h, read, nil
}

// knownMetrics are the presets and the rollout's own.
func knownMetrics(spec rollout.Spec) []analysis.Metric {
	out := analysis.Presets()
	for i, m := range out {
		if d, ok := spec.Metrics.Definitions[m.Name]; ok {
			out[i] = analysis.Metric{Name: m.Name, Kind: analysis.Kind(d.Kind), Better: analysis.Better(d.Better), Quantile: d.Quantile}
		}
	}
	for name, d := range spec.Metrics.Definitions {
		if _, preset := analysis.Preset(name); !preset {
			out = append(out, analysis.Metric{Name: name, Kind: analysis.Kind(d.Kind), Better: analysis.Better(d.Better), Quantile: d.Quantile})
		}
	}
	return out
}

const (
	defaultLast = "14d"

	leastPast = time.Minute
	mostPast  = 400 * 24 * time.Hour
)

// window is the time to look at.
func (c calibrating) window(now time.Time) (from, to time.Time, err error) {
	to = now
	if c.until != "" {
		if to, err = time.Parse(time.RFC3339, c.until); err != nil {
			return from, to, fmt.Errorf("--until %q: want a time such as 2026-03-01T12:00:00Z", c.until)
		}
	}
	last, err := daysOrDuration(c.last)
	if err != nil || last < leastPast || last > mostPast {
		return from, to, fmt.Errorf("--last %q: want a time such as 14d or 36h, from 1m to 400d", c.last)
	}
	return to.Add(-last), to, nil
}

// pastTarget is the Prometheus that the flags name. Secrets come from the environment or from the worker's settings.
func (a *app) pastTarget(c calibrating, spec rollout.Spec) (config.MetricsTarget, error) {
	if c.worker != "" {
		w, err := config.LoadWorker(c.worker)
		if err != nil {
			return config.MetricsTarget{}, badFile{err}
		}
		name := c.target
		if name == "" {
			name = spec.Metrics.Target
		}
		t, ok := w.Metrics[name]
		if !ok {
			return t, fmt.Errorf("%s has no metrics target %q, want one of those under metrics", c.worker, name)
		}
		return t, nil
	}
	u, err := url.Parse(c.prometheus)
	switch {
	case err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https"):
		return config.MetricsTarget{}, errors.New("--prometheus: want a URL such as http://prometheus:9090")
	case u.User != nil:
		return config.MetricsTarget{}, fmt.Errorf("--prometheus: want no credentials in the URL, others can read a command line: set %s, or %s and %s", promToken, promUser, promPassword)
	}
	t := config.MetricsTarget{Provider: config.ProviderPrometheus}
	if user := a.env(promUser); user != "" {
		u.User = url.UserPassword(user, a.env(promPassword))
	} else if token := a.env(promToken); token != "" {
		t.Token = config.NewSecret(token)
	}
	t.Address = u.String()
	return t, nil
}

// fragmentOf is the settings as YAML to paste. Numbers are rounded up: more caution, not less.
func fragmentOf(r *calibration.Result) ([]byte, error) {
	settings := map[string]map[string]float64{}
	for key, values := range map[string]map[string]float64{"overdispersion": r.Overdispersion, "cohort_spread": r.CohortSpread} {
		for metric, v := range values {
			if v = roundUp(v); v > 0 {
				if settings[key] == nil {
					settings[key] = map[string]float64{}
				}
				settings[key][metric] = v
			}
		}
	}
	unknown := ""
	for _, m := range r.Metrics {
		if m.Tested && m.Phi == nil {
			unknown += " " + m.Name
		}
	}
	switch {
	case len(settings) == 0 && unknown != "":
		return []byte("# Nothing is known to set: the history is too thin to tell what chance does to" + unknown + ".\n"), nil
	case len(settings) == 0:
		return []byte("# Chance does no more to this agent than to independent requests: nothing to set.\n"), nil
	}
	return encode(map[string]any{"analysis": settings}, "yaml")
}
