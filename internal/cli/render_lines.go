package cli

import (
	"fmt"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// FormatDecision is a decision in one line: time of day, kind, stage, weight, reason, and who made it if a human did. The
// time is in d.At's own zone.
func FormatDecision(d rollout.Decision) string {
	return fmt.Sprintf("%s  %s  %s", d.At.Format(time.TimeOnly), decisionWords(d), reasonOf(d))
}

// decisionWords are the columns of a decision before its reason.
func decisionWords(d rollout.Decision) string {
	stage := d.Stage
	if stage == "" {
		stage = absent
	}
	return fmt.Sprintf("%s  %s  %s", pad(clean(string(d.Kind)), 14), pad(clean(stage), 10), pad(d.Weight.String(), 5))
}

// reasonOf is a decision's reason. Most name who already; the table has a column for it anyway.
func reasonOf(d rollout.Decision) string {
	if d.Reason == "" {
		return string(d.Phase)
	}
	return clean(d.Reason)
}

// FormatEvidence is a piece of evidence in one line: verdict, check and figures.
func FormatEvidence(e rollout.Evidence) string {
	return mark(e.Verdict) + " " + claim(e)
}

// claim is what a check demands and what was seen.
func claim(e rollout.Evidence) string {
	return clean(fmt.Sprintf("%s %s: %s", subject(e), limit(e), Figures(e)))
}

// Decision draws a decision for the timeline, with the evidence behind it for those that move the canary or take it back. The lines may be
// wider than the screen.
func (s Screen) Decision(d rollout.Decision) []string {
	lines := []string{s.paint(dim, d.At.Format(time.TimeOnly)) + "  " + s.paint(decisionInk(d), decisionWords(d)) + "  " + reasonOf(d)}
	for _, e := range telling(d) {
		lines = append(lines, "          "+s.paint(verdictInk(e.Verdict), mark(e.Verdict))+" "+claim(e))
	}
	return lines
}

// telling is the evidence worth a line in the timeline: of a rollback what is violated, of the way up everything with numbers.
func telling(d rollout.Decision) []rollout.Evidence {
	var out []rollout.Evidence
	for _, e := range d.Evidence {
		switch d.Kind {
		case rollout.DecideRollback, rollout.DecidePause:
			if e.Verdict == rollout.Violated {
				out = append(out, e)
			}
		case rollout.DecideAdvance, rollout.DecidePromote, rollout.DecideApprove:
			if e.Role != "guard" && e.Canary.Estimate != nil {
				out = append(out, e)
			}
		case rollout.DecideHold, rollout.DecideApproval:
			if e.Verdict != rollout.Met {
				out = append(out, e)
			}
		}
	}
	return out
}

func decisionInk(d rollout.Decision) ink {
	switch d.Kind {
	case rollout.DecideAdvance, rollout.DecidePromote, rollout.DecideApprove:
		return green
	case rollout.DecideRollback, rollout.DecideBlocked:
		return red
	case rollout.DecideEnd:
		if d.Phase == rollout.Promoted {
			return green
		}
		return red
	case rollout.DecideShift, rollout.DecideStart, rollout.DecideResume, rollout.DecideThaw:
		return cyan
	case rollout.DecideIgnore:
		return dim
	}
	return yellow
}

// Outcome is how a rollout ended and why, in one sentence.
func Outcome(st rollout.Status) string {
	if st.Reason == "" || !st.Phase.Terminal() {
		return ending(st)
	}
	return ending(st) + ": " + clean(st.Reason)
}

// ending is how a rollout ended, without why.
func ending(st rollout.Status) string {
	what := map[rollout.Phase]string{
		rollout.Promoted:   "%s of %s was promoted",
		rollout.RolledBack: "%s of %s was rolled back",
		rollout.Aborted:    "%s of %s was aborted",
		rollout.Canceled:   "%s of %s was canceled",
		rollout.Rejected:   "%s of %s was rejected before any traffic moved",
	}[st.Phase]
	if what == "" {
		return clean(fmt.Sprintf("%s of %s stopped in phase %s", st.Canary, st.Agent, st.Phase))
	}
	out := fmt.Sprintf(what, st.Canary, st.Agent)
	if !st.Started.IsZero() && !st.Ended.IsZero() {
		out += " after " + span(st.Ended.Sub(st.Started))
	}
	return clean(out)
}
