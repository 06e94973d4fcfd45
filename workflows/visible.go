package workflows

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Search attributes of a rollout, where the namespace knows them.
var (
	attributeAgent  = temporal.NewSearchAttributeKeyKeyword("CanaryAgent")
	attributePhase  = temporal.NewSearchAttributeKeyKeyword("CanaryPhase")
	attributeWeight = temporal.NewSearchAttributeKeyFloat64("CanaryWeight") // a fraction, 0 to 1
)

// visible is what lists of rollouts show.
type visible struct {
	phase      rollout.Phase
	stage      string
	weight     rollout.Weight
	attributes bool
}

// show keeps what people see outside in step with the State. It gates nothing: an error is logged.
func (c *canary) show() {
	workflow.SetCurrentDetails(c.ctx, details(c.state.Status()))
	now := visible{phase: c.state.Phase, stage: c.state.StageNow().Name, weight: c.state.Weight, attributes: c.attributes}
	if now == c.shown {
		return
	}
	c.shown = now
	c.log.Info("rollout moved", "agent", c.state.Spec.Agent, "phase", now.phase, "stage", now.stage, "weight", now.weight.String())
	err := workflow.UpsertMemo(c.ctx, map[string]any{
		MemoAgent: c.state.Spec.Agent, MemoStable: c.state.Spec.Stable, MemoCanary: c.state.Spec.Canary,
		MemoPhase: now.phase, MemoStage: now.stage, MemoWeight: now.weight,
	})
	if err != nil {
		c.log.Warn("memo not set", "error", err)
	}
	if !c.attributes {
		return
	}
	err = workflow.UpsertTypedSearchAttributes(c.ctx,
		attributeAgent.ValueSet(c.state.Spec.Agent), attributePhase.ValueSet(string(now.phase)), attributeWeight.ValueSet(now.weight.Fraction()))
	if err != nil {
		c.log.Warn("search attributes not set", "error", err)
	}
}

// guardSummary names the timer that runs beside the task in flight.
func (c *canary) guardSummary() string {
	if c.state.Task.None() {
		return "wait to try again"
	}
	return "guard of " + string(c.state.Task.Kind)
}

// details is a rollout's status as short markdown, for the Temporal UI.
func details(s rollout.Status) string {
	var b strings.Builder
	add(&b, "**%s: %s → %s** · %s · canary %s", s.Agent, s.Stable, s.Canary, s.Phase, s.Share())
	if s.Stages > 0 && s.Stage != "" {
		add(&b, " · stage %d/%d `%s`", s.StageIndex+1, s.Stages, s.Stage)
	}
	b.WriteString("\n")
	if s.Paused != nil {
		add(&b, "\n**Paused** by %s since %s", cell(s.Paused.By), s.Paused.Since.Format(time.RFC3339))
		if s.Paused.Reason != "" {
			b.WriteString(": " + cell(s.Paused.Reason))
		}
		b.WriteString("\n")
	}
	add(&b, "\nObserved %s of %s; %.0f canary and %.0f stable requests\n",
		rollout.Duration(s.Observed.Std().Round(time.Second)), s.Duration, s.Requests.Canary, s.Requests.Stable)
	for _, trouble := range []struct{ what, why string }{
		{"Held back", held(s)}, {"Frozen", s.Frozen}, {"Metrics source", s.SourceDown}, {"Data plane", s.PlaneDown},
		{"In doubt", s.Mismatch}, {"Violation", s.Violation},
	} {
		if trouble.why != "" {
			add(&b, "\n%s: %s\n", trouble.what, cell(trouble.why))
		}
	}
	evidenceTable(&b, s.Evidence)
	if s.Last != nil {
		add(&b, "\nLast decision: %s by %s at %s: %s\n", s.Last.Kind, cell(s.Last.By), s.Last.At.Format(time.RFC3339), cell(s.Last.Reason))
	}
	return b.String()
}

// add is fmt.Fprintf, which workflowcheck can't know to be deterministic.
func add(b *strings.Builder, format string, args ...any) { b.WriteString(fmt.Sprintf(format, args...)) }

func held(s rollout.Status) string {
	if s.Hold.IsZero() {
		return ""
	}
	return "since " + s.Hold.Format(time.RFC3339)
}

func evidenceTable(b *strings.Builder, evidence []rollout.Evidence) {
	if len(evidence) == 0 {
		return
	}
	b.WriteString("\n| check | verdict | stable | canary | change | e-value | requests to go |\n|---|---|---|---|---|---|---|\n")
	for _, e := range evidence {
		change := "–"
		if e.Change != nil {
			change = number(*e.Change*100) + "%"
		}
		if interval := e.Interval(); interval != "" {
			change += ", " + interval
		}
		add(b, "| %s | %s | %s | %s | %s | %s | %s |\n", cell(e.Check), e.Verdict, arm(e.Stable), arm(e.Canary), change, optional(e.EValue), optional(e.Needed))
	}
}

func optional(f *float64) string {
	if f == nil {
		return "–"
	}
	return number(*f)
}

func arm(a rollout.Arm) string {
	switch {
	case a.Estimate != nil:
		return fmt.Sprintf("%s (n=%s)", number(*a.Estimate), number(a.N))
	case a.N > 0:
		return number(a.X) + " of " + number(a.N)
	}
	return "–"
}

func number(f float64) string { return strconv.FormatFloat(f, 'g', 4, 64) }

// cell makes a text safe to stand in markdown, on one line and between bars.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "<", "&lt;", "`", "'", "*", "\\*", "[", "\\[", "\n", " ", "\r", " ").Replace(s)
}
