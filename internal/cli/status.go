package cli

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/aviary-rollouts/aviary/rollout"
	"github.com/aviary-rollouts/aviary/workflows"
)

// one wants exactly one argument.
func one(what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usageError{fmt.Errorf("want one %s, got %d arguments", what, len(args))}
		}
		return nil
	}
}

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use: "status AGENT", Short: "Show where a rollout stands, or how the last one ended", GroupID: groupSee,
		Args: one("AGENT"), ValidArgsFunction: a.completeAgents,
		RunE: func(cmd *cobra.Command, args []string) error { return a.showStatus(cmd.Context(), args[0]) },
	}
}

func (a *app) showStatus(ctx context.Context, arg string) error {
	agent, err := agentOf(arg)
	if err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.temporal.Close()
	l, err := s.look(ctx, agent)
	if err != nil {
		return err
	}
	return a.emit(l.Status, func() { a.draw(s.view(ctx, agent, l), s.link(agent)) })
}

// draw writes a whole view, and the link below it.
func (a *app) draw(v View, link string) {
	_, _ = fmt.Fprint(a.Out, a.screen().Status(v))
	if link != "" {
		a.say("%s", link)
	}
}

// view is what is shown of a look. The series is asked for too; without an answer it is left out.
func (s *session) view(ctx context.Context, agent string, l look) View {
	v := View{Status: l.Status, Now: s.clock.Now()}
	if l.Stale != "" {
		v.Notes = append(v.Notes, l.Stale)
		return v
	}
	if how := l.cutOff(); how != "" {
		v.Notes = append(v.Notes, cutOffNote(how))
	}
	v.Series = s.series(ctx, agent, l)
	return v
}

// series is what was measured so far. Without a worker's answer it is empty.
func (s *session) series(ctx context.Context, agent string, l look) []rollout.Point {
	var points []rollout.Point
	if err := s.query(ctx, workflows.WorkflowID(agent), l.RunID, workflows.QuerySeries, &points); err != nil {
		return nil
	}
	return append(points, l.Live...)
}

func cutOffNote(how string) string {
	return fmt.Sprintf("The workflow was %s before the rollout had ended. Stable gets its traffic back by the lease or by the sweep, not by this rollout.", how)
}

func (a *app) decisions() *cobra.Command {
	return &cobra.Command{
		Use: "decisions AGENT", Aliases: []string{"history"}, Short: "Show every decision with its evidence, oldest first", GroupID: groupSee,
		Long: `Show every decision of the rollout under way, or of the last one, with its evidence, oldest first. Earlier rollouts are in the
Temporal UI, and by their run:

  temporal workflow query -w canary/AGENT -r RUN --type decisions`,
		Args: one("AGENT"), ValidArgsFunction: a.completeAgents,
		RunE: func(cmd *cobra.Command, args []string) error { return a.showDecisions(cmd.Context(), args[0]) },
	}
}

func (a *app) showDecisions(ctx context.Context, arg string) error {
	agent, err := agentOf(arg)
	if err != nil {
		return err
	}
	s, err := a.connect(ctx)
	if err != nil {
		return err
	}
	defer s.temporal.Close()
	l, err := s.look(ctx, agent)
	if err != nil {
		return err
	}
	var ds []rollout.Decision
	if err := s.query(ctx, workflows.WorkflowID(agent), l.RunID, workflows.QueryDecisions, &ds); err != nil {
		if noAnswer(err) {
			return fmt.Errorf("decisions of %s: no worker on task queue %s answers, and only a worker can read them: start one", agent, l.Queue)
		}
		return s.explain("decisions of "+agent, err)
	}
	return a.emit(ds, func() { a.say("%s", a.screen().Decisions(ds, a.Zone)) })
}

// Decisions draws decisions as a table, each with its evidence below it. Times are in the given zone.
func (s Screen) Decisions(ds []rollout.Decision, zone *time.Location) string {
	table := [][]string{{"TIME", "DECISION", "STAGE", "WEIGHT", "BY", "REASON"}}
	for _, d := range ds {
		table = append(table, []string{d.At.In(zone).Format(time.DateTime), string(d.Kind), d.Stage, d.Weight.String(), d.By, ""})
	}
	if wide, fits := s.table(table, make([]ink, len(table))); fits && s.columns() >= 80 {
		return s.paint(dim, wide[0]) + "\n" + s.spread(ds, table)
	}
	var lines []string
	for _, d := range ds {
		head := fmt.Sprintf("%s %s %s %s", d.At.In(zone).Format(time.DateTime), d.Kind, d.Stage, d.Weight)
		lines = append(lines, s.paint(decisionInk(d), cut(head, s.columns())))
		lines = append(lines, indent(wrap(fmt.Sprintf("%s (%s)", reasonOf(d), d.By), s.columns()-2), "  ")...)
		for _, e := range d.Evidence {
			lines = append(lines, indent(wrap(FormatEvidence(e), s.columns()-4), "    ")...)
		}
	}
	return strings.Join(lines, "\n")
}

// spread writes decisions in columns. The reason is wrapped in what is left of the screen.
func (s Screen) spread(ds []rollout.Decision, table [][]string) string {
	var lines []string
	heads, _ := s.table(pick(table, []int{0, 1, 2, 3, 4}), make([]ink, len(table)))
	left := 0
	for _, h := range heads {
		left = max(left, width(h))
	}
	left += 2
	for i, d := range ds {
		reason := wrap(reasonOf(d), s.columns()-left)
		head := pad(heads[i+1], left)
		for j, l := range reason {
			if j > 0 {
				head = strings.Repeat(" ", left)
			}
			lines = append(lines, s.paint(decisionInk(d), head)+l)
		}
		for _, e := range d.Evidence {
			for j, l := range wrap(FormatEvidence(e), s.columns()-6) {
				at := "    "
				if j > 0 {
					at = "      "
				}
				lines = append(lines, s.paint(dim, at+l))
			}
		}
	}
	return strings.Join(lines, "\n")
}

func indent(lines []string, by string) []string {
	for i, l := range lines {
		lines[i] = by + l
	}
	return lines
}

// join is lines as one text; those that don't fit are cut to w columns.
func join(lines []string, w int, fits bool) string {
	if !fits {
		for i, l := range lines {
			lines[i] = cut(l, w)
		}
	}
	return strings.Join(lines, "\n")
}
