package cli

import (
	"fmt"
	"math"
	"time"

	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/rollout"
)

// reportWidth is how wide a report is at most: it is kept, mailed and read again.
const reportWidth = 80

// calibration draws what a history says, in lines of at most 80 columns.
func (s Screen) calibration(spec rollout.Spec, version, read string, r *calibration.Result) []string {
	s.Width = min(s.columns(), reportWidth)
	lines := wrap(fmt.Sprintf("%s %s, %s from %s in polls of %s%s: %s", spec.Agent, version, span(dayspan(r.Days)),
		r.From.UTC().Format("2006-01-02 15:04 MST"), span(inSeconds(r.Step)), unitsOf(r), read), s.columns())
	lines = append(lines, wrap(fmt.Sprintf("%s requests a second; %s in the busiest hour, %s in the quietest",
		number(r.Traffic.Mean), number(r.Traffic.Peak), number(r.Traffic.Trough)), s.columns())...)
	lines = append(lines, "", s.paint(bold, "What is natural"))
	lines = append(lines, s.natural(r)...)
	lines = append(lines, "", s.paint(bold, fmt.Sprintf("What the analysis makes of identical versions, in %d rollouts", r.Replays.Count)))
	lines = append(lines, s.replays(r.Replays)...)
	if len(r.Promises) > 0 {
		lines = append(lines, "", s.paint(bold, "How soon a regression is caught: half of the times, 9 in 10 times"))
		lines = append(lines, s.promises(r)...)
	}
	if len(r.Warnings) > 0 {
		lines = append(lines, "")
	}
	for _, w := range r.Warnings {
		for i, line := range wrap(w, s.columns()-2) {
			lines = append(lines, []string{"! ", "  "}[min(i, 1)]+line)
		}
	}
	return lines
}

func dayspan(days float64) time.Duration      { return time.Duration(days * 24 * float64(time.Hour)) }
func inSeconds(seconds float64) time.Duration { return time.Duration(seconds * float64(time.Second)) }

// unitsOf says how the history is divided.
func unitsOf(r *calibration.Result) string {
	switch r.By {
	case calibration.Instances:
		return fmt.Sprintf(" of %d instances", r.Units)
	case calibration.Users:
		return fmt.Sprintf(" of %s users", number(float64(r.Units)))
	}
	return ""
}

// natural is a line per metric: its base, φ and cohort spread.
func (s Screen) natural(r *calibration.Result) []string {
	rows := [][]string{{"metric", "base", "trials", "φ measured", "φ used", "cohorts"}}
	inks := []ink{dim}
	for _, m := range r.Metrics {
		base, cohort := absent, absent
		if m.Base != nil {
			base = inUnits(m.Name, *m.Base)
		}
		if m.Cohort != nil {
			cohort = "±" + percent(*m.Cohort)
		}
		used := absent
		if m.Phi != nil {
			used = number(roundUp(m.Used))
		}
		rows, inks = append(rows, []string{m.Name, base, number(m.Trials), optional(m.Phi), used, cohort}), append(inks, plain)
	}
	lines, _ := s.table(rows, inks)
	return lines
}

// replays puts the two settings of φ and the raw rule side by side.
func (s Screen) replays(r calibration.Replays) []string {
	rates := func(name string, of calibration.Rates) []string {
		return []string{name, percent(of.TakenBack), percent(of.AtMost), percent(of.Doubtful)}
	}
	rows := [][]string{{"", "rolled back", "at most", "e-value reached 20 (want 5% or less)"}, rates("φ measured", r.Measured)}
	inks := []ink{dim, plain}
	if r.Rounds > 0 {
		rows, inks = append(rows, rates("φ raised", r.Used)), append(inks, plain)
	}
	rows, inks = append(rows, []string{"raw threshold rule", percent(r.Threshold), "", ""}), append(inks, plain)
	lines, _ := s.table(rows, inks)
	return lines
}

// promises is a line per metric, a column per factor.
func (s Screen) promises(r *calibration.Result) []string {
	rows := [][]string{{"metric"}}
	inks := []ink{dim}
	for _, p := range r.Promises {
		if len(rows) == 1 || rows[len(rows)-1][0] != p.Metric {
			rows, inks = append(rows, []string{p.Metric}), append(inks, plain)
		}
		if len(rows) == 2 {
			rows[0] = append(rows[0], "×"+number(p.Factor))
		}
		rows[len(rows)-1] = append(rows[len(rows)-1], promised(p))
	}
	lines, _ := s.table(rows, inks)
	return lines
}

// promised is when a regression is caught.
func promised(p calibration.Promise) string {
	switch {
	case p.Allowed:
		return "allowed"
	case p.Caught == 0:
		return "not caught"
	case p.Median == nil:
		return "in " + percent(p.Caught)
	case p.P90 == nil:
		return span(inSeconds(*p.Median)) + ", later"
	}
	return span(inSeconds(*p.Median)) + ", " + span(inSeconds(*p.P90))
}

// roundUp is a setting with a decimal, or two digits that count below 1, never less than measured; 0 stays 0.
func roundUp(x float64) float64 {
	if x <= 0 || math.IsNaN(x) || math.IsInf(x, 0) {
		return 0
	}
	per := 10.0
	if x < 1 {
		per = math.Pow(10, 1-math.Floor(math.Log10(x)))
	}
	return math.Ceil(x*per-1e-9) / per // divided, as 93/10 is 9.3 and 93·0.1 is not
}
