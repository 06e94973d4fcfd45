package cli

import (
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/simulate"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
)

// simulating is the flags of simulate.
type simulating struct {
	simulate.Scenario
	seed      uint64
	runs      int
	approve   time.Duration
	overrides *config.Overrides
}

func (a *app) simulate() *cobra.Command {
	var s simulating
	cmd := &cobra.Command{
		Use: "simulate FILE", Short: "Run a rollout on a made-up world, while time is skipped", GroupID: groupFile, Args: one("FILE"),
		Long: `Run the rollout in FILE on a made-up agent and its users: the product's own workflow and statistics, with time skipped. A week takes
seconds. Both versions are alike unless you say otherwise.

  --base        ` + simulate.BaseForm + `
  --regression  ` + simulate.RegressionForm + `
  --incident    ` + simulate.IncidentForm + `
  --signal      ` + simulate.SignalForm + `

The same file, flags and seed give the same answer. Exit codes: 0 promoted, 3 rolled back or aborted, 1 it waits for a human or failed. With --runs: 0.`,
	}
	s.overrides = overrides(cmd)
	flags := cmd.Flags()
	flags.Float64Var(&s.RPS, "rps", 10, "`number` of requests a second of both versions together")
	flags.Float64Var(&s.Diurnal, "diurnal", 0, "how much traffic swings with the day, as a `share` from 0 to 1")
	flags.StringArrayVar(&s.Bases, "base", nil, "what a metric is on both versions, as `METRIC=NUMBER`")
	flags.StringArrayVar(&s.Regressions, "regression", nil, "what the canary does worse, as `METRIC=CHANGE[@WHEN]`")
	flags.StringArrayVar(&s.Incidents, "incident", nil, "what befalls a version or both, as `ARM[:METRIC=CHANGE][@WHEN]`")
	flags.StringArrayVar(&s.Signals, "signal", nil, "what a human asks, as `SIGNAL@WHEN`")
	flags.DurationVar(&s.approve, "approve-after", 10*time.Minute, "how long a human takes to approve a stage, about; -1s: nobody does")
	flags.Uint64Var(&s.seed, "seed", 1, "`number` that chance is drawn from")
	flags.IntVar(&s.runs, "runs", 1, "`number` of runs, each with the next seed; more than one prints how often it ends how")
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return a.runSimulate(cmd.Context(), args[0], s) }
	return cmd
}

// simulated is one run, for JSON and YAML.
type simulated struct {
	Seed      uint64             `json:"seed"`
	World     []string           `json:"world"`
	Ended     bool               `json:"ended"` // else it waits for a human
	Status    rollout.Status     `json:"status"`
	Took      rollout.Duration   `json:"took"`             // from the start to the end
	Delay     *rollout.Duration  `json:"delay,omitempty"`  // from the first regression to the rollback
	Excess    map[string]float64 `json:"excess,omitempty"` // bad outcomes on the canary beyond those of stable
	Missed    []string           `json:"missed,omitempty"` // what was to happen after the end
	Decisions []rollout.Decision `json:"decisions"`
}

func (a *app) runSimulate(ctx context.Context, file string, how simulating) error {
	if how.approve < 0 && how.approve != -time.Second {
		return usageError{fmt.Errorf("--approve-after %s: want 0 or more, or -1s for nobody", how.approve)}
	}
	if how.runs < 1 || how.runs > 10_000 {
		return usageError{fmt.Errorf("--runs %d: want 1 to 10000", how.runs)}
	}
	spec, err := load(file, *how.overrides)
	if err != nil {
		return err
	}
	o, err := how.Options(spec)
	if err != nil {
		return usageError{err}
	}
	o.Approve, o.Start = how.approve, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var all []simulated
	for i := range how.runs {
		o.Seed = how.seed + uint64(i) //nolint:gosec // not negative
		out, err := simulate.Run(ctx, o)
		if err != nil {
			return err
		}
		all = append(all, simulatedOf(o, out))
	}
	if how.runs > 1 {
		return a.emit(all, func() { a.saySpread(spec, all) })
	}
	if err := a.emit(all[0], func() { a.saySimulated(spec, o, all[0]) }); err != nil {
		return err
	}
	return endingOf(all[0])
}

// endingOf is the error that stands for how a run ended.
func endingOf(s simulated) error {
	switch {
	case !s.Ended:
		return fmt.Errorf("the simulated rollout waits for a human: %s", waitsFor(s.Status))
	case s.Status.Phase == rollout.Promoted:
		return nil
	}
	return takenBack{s.Status.Phase}
}

func simulatedOf(o simulate.Options, out simulate.Outcome) simulated {
	s := simulated{
		Seed: o.Seed, World: describe(o), Ended: out.Ended, Status: out.Status, Decisions: out.Decisions, Excess: map[string]float64{},
	}
	end := out.Status.Ended
	if last := len(out.Decisions) - 1; end.IsZero() && last >= 0 {
		end = out.Decisions[last].At
	}
	s.Took = rollout.Duration(end.Sub(o.Start))
	s.Missed = missed(o, s.Took.Std())
	for _, h := range out.Harm {
		if isWorse(o.World, h.Metric, s.Took.Std()) { // of the others the difference is chance
			s.Excess[h.Metric] = math.Round(h.Excess)
		}
	}
	for _, d := range out.Decisions {
		if from, any := firstRegression(o.World); any && d.Kind == rollout.DecideRollback && !d.At.Before(o.Start.Add(from)) {
			delay := rollout.Duration(d.At.Sub(o.Start.Add(from)))
			s.Delay = &delay
			break
		}
	}
	return s
}

// isWorse reports whether a world makes a metric worse, or better, on the canary alone, before the rollout ended.
func isWorse(w world.World, metric string, took time.Duration) bool {
	return slices.ContainsFunc(w.Regressions, func(r world.Regression) bool { return r.Metric == metric && r.From < took }) ||
		slices.ContainsFunc(w.Incidents, func(i world.Incident) bool { return i.Metric == metric && i.Arm == world.Canary && i.From < took })
}

// missed are the events of a world that the rollout ended before.
func missed(o simulate.Options, took time.Duration) []string {
	var out []string
	never := func(what string, at time.Duration) {
		if at > took {
			out = append(out, fmt.Sprintf("%s at %s never came: the rollout ended after %s", what, span(at), span(took)))
		}
	}
	for _, r := range o.World.Regressions {
		never("the regression of "+r.Metric, r.From)
	}
	for _, i := range o.World.Incidents {
		never("the incident of "+i.Metric, i.From)
	}
	for _, s := range o.Signals {
		never("the signal "+string(s.Signal), s.At)
	}
	return out
}

func firstRegression(w world.World) (time.Duration, bool) {
	if len(w.Regressions) == 0 {
		return 0, false
	}
	return slices.MinFunc(w.Regressions, func(a, b world.Regression) int { return int(a.From - b.From) }).From, true
}

// describe is a world in words, a line each.
func describe(o simulate.Options) []string {
	w := o.World
	traffic := fmt.Sprintf("%g requests/s", w.RPS)
	if w.Diurnal > 0 {
		traffic += fmt.Sprintf(", %.0f%% more or less with the day", 100*w.Diurnal)
	}
	lines := []string{traffic}
	for _, m := range w.Metrics {
		value := m.Base
		if m.Kind == analysis.Quantile {
			value = simulate.QuantileOf(m)
		}
		if value < 1e-7 { // as good as none, so that a factor makes something of it
			value = 0
		}
		lines = append(lines, fmt.Sprintf("%s %s", m.Name, number(value)))
	}
	for _, r := range w.Regressions {
		lines = append(lines, fmt.Sprintf("canary: %s from %s on", worse(w, r), span(r.From)))
	}
	for _, i := range w.Incidents {
		lines = append(lines, fmt.Sprintf("%s: %s %s from %s to %s", i.Arm, badly(i.Metric), times(i.Factor), span(i.From), span(i.To)))
	}
	return lines
}

// worse is a regression in words: the rate itself where stable has as good as none.
func worse(w world.World, r world.Regression) string {
	m := w.Metric(r.Metric)
	bad := m.Base
	if m.Kind == analysis.Ratio && m.Better == analysis.Higher {
		bad = 1 - m.Base
	}
	if bad < 1e-7 {
		return fmt.Sprintf("%s of %s", badly(r.Metric), number(bad*r.Factor))
	}
	return badly(r.Metric) + " " + times(r.Factor)
}

// badly is what there is more of when a metric gets worse.
func badly(name string) string {
	if name == "task_completion_rate" {
		return "failed tasks"
	}
	return name
}

func times(factor float64) string { return "×" + number(factor) }

// saySimulated writes one run as a timeline.
func (a *app) saySimulated(spec rollout.Spec, o simulate.Options, s simulated) {
	screen := a.screen()
	a.say("%s: %s → %s on a made-up world (seed %d), %s, at least %s",
		spec.Agent, spec.Stable, spec.Canary, s.Seed, stagesOf(len(spec.Stages)), span(least(spec)))
	for _, line := range wrap(strings.Join(s.World, ", "), screen.columns()-2) {
		a.say("  %s", line)
	}
	a.say("")
	for _, d := range s.Decisions {
		words := pad(since(d.At.Sub(o.Start)), 10) + "  " + decisionWords(d)
		lines := wrap(reasonOf(d), max(20, screen.columns()-width(words)-2))
		for i, line := range lines {
			if i == 0 {
				a.say("%s  %s", words, line)
				continue
			}
			a.say("%s  %s", strings.Repeat(" ", width(words)), line)
		}
		for _, e := range telling(d) {
			for i, line := range wrap(mark(e.Verdict)+" "+claim(e), screen.columns()-14) {
				a.say("%s%s", strings.Repeat(" ", 12+2*min(i, 1)), line)
			}
		}
	}
	a.say("")
	for _, line := range wrap(simulatedEnd(s), screen.columns()) {
		a.say("%s", line)
	}
	for _, m := range s.Missed {
		for _, line := range screen.bullet("! ", m) {
			a.say("%s", line)
		}
	}
}

// simulatedEnd is how a run ended and what it cost, in a sentence or two.
func simulatedEnd(s simulated) string {
	out := ending(s.Status)
	if !s.Ended {
		out = fmt.Sprintf("%s of %s waits for a human after %s: %s", s.Status.Canary, s.Status.Agent, span(s.Took.Std()), waitsFor(s.Status))
	}
	if s.Delay != nil {
		out += fmt.Sprintf(", %s after the regression began", span(s.Delay.Std()))
	}
	out += "."
	for _, name := range slices.Sorted(maps.Keys(s.Excess)) {
		if n := s.Excess[name]; n >= 1 {
			out += fmt.Sprintf(" It cost about %.0f bad outcomes of %s that stable would not have had.", n, name)
		}
	}
	return clean(out)
}

// waitsFor is what a rollout waits for that nobody helps.
func waitsFor(st rollout.Status) string {
	switch {
	case st.Paused != nil && st.Paused.Reason != "":
		return "paused, " + st.Paused.Reason
	case st.Paused != nil:
		return "paused"
	}
	return strings.ReplaceAll(string(st.Phase), "_", " ")
}

// since is a time since the start as a rollout is talked about: days and hours.
func since(d time.Duration) string {
	d = d.Round(time.Second)
	days, rest := d/(24*time.Hour), d%(24*time.Hour)
	clock := fmt.Sprintf("%02d:%02d:%02d", int(rest.Hours()), int(rest.Minutes())%60, int(rest.Seconds())%60)
	if days == 0 {
		return clock
	}
	return fmt.Sprintf("%dd %s", days, clock[:5])
}

// saySpread writes how often many runs ended how.
func (a *app) saySpread(spec rollout.Spec, all []simulated) {
	a.say("%s: %s → %s on made-up worlds, %d runs from seed %d", spec.Agent, spec.Stable, spec.Canary, len(all), all[0].Seed)
	for _, line := range wrap(strings.Join(all[0].World, ", "), a.screen().columns()-2) {
		a.say("  %s", line)
	}
	a.say("")
	ends := map[string][]time.Duration{}
	for _, s := range all {
		end := string(s.Status.Phase)
		if !s.Ended {
			end = "waits for a human"
		}
		ends[strings.ReplaceAll(end, "_", " ")] = append(ends[strings.ReplaceAll(end, "_", " ")], s.Took.Std())
	}
	names := make([]string, 0, len(ends))
	for name := range ends {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		if d := len(ends[y]) - len(ends[x]); d != 0 {
			return d
		}
		return strings.Compare(x, y)
	})
	rows := [][]string{{"ended", "runs", "share", "after (median)", "90 % within"}}
	for _, name := range names {
		d := ends[name]
		slices.Sort(d)
		rows = append(rows, []string{
			name, fmt.Sprint(len(d)), fmt.Sprintf("%.0f%%", 100*float64(len(d))/float64(len(all))), span(d[len(d)/2]), span(d[min(len(d)-1, len(d)*9/10)]),
		})
	}
	lines, _ := a.screen().table(rows, make([]ink, len(rows)))
	for _, line := range lines {
		a.say("%s", line)
	}
}
