package cli

import (
	"fmt"
	"strings"

	"github.com/aviary-rollouts/aviary/rollout"
)

func mark(v rollout.Verdict) string {
	switch v {
	case rollout.Met:
		return "✓"
	case rollout.Violated:
		return "✗"
	case rollout.NoData:
		return "-"
	}
	return "~"
}

func words(v rollout.Verdict) string { return strings.ReplaceAll(string(v), "_", " ") }

func verdictInk(v rollout.Verdict) ink {
	switch v {
	case rollout.Met:
		return green
	case rollout.Violated:
		return red
	case rollout.NoData:
		return dim
	}
	return yellow
}

// Evidence draws each check with both versions' numbers: as a table where the screen is wide enough, with what its columns have no room for below
// each row; else as two lines a check.
func (s Screen) Evidence(evidence []rollout.Evidence, stable, canary string) []string {
	rows := [][]string{{" ", "check", stable, canary, "change", "limit", "e-value", "asked by", "note"}}
	inks := []ink{dim}
	for _, e := range evidence {
		rows = append(rows, []string{
			mark(e.Verdict), subject(e), estimate(e.Metric, e.Stable), estimate(e.Metric, e.Canary),
			change(e.Change), limit(e), optional(e.EValue), e.Role, details(e),
		})
		inks = append(inks, verdictInk(e.Verdict))
	}
	if lines, fits := s.table(rows, inks); fits {
		return lines
	}
	for _, columns := range [][]int{{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3, 4, 5, 6}} {
		if lines, fits := s.table(pick(rows, columns), inks); fits {
			return s.withDetails(lines, evidence)
		}
	}
	return s.stacked(evidence)
}

// withDetails puts the details of each piece of evidence below its row. The first line is the header.
func (s Screen) withDetails(lines []string, evidence []rollout.Evidence) []string {
	out := lines[:1:1]
	for i, e := range evidence {
		out = append(out, lines[i+1])
		for _, l := range wrap(details(e), s.columns()-3) {
			out = append(out, s.paint(dim, "   "+l))
		}
	}
	return out
}

// table aligns rows in columns. The ink colours a row's first column, and all of the header. It does not fit when a line would be wider than the screen.
func (s Screen) table(rows [][]string, inks []ink) (lines []string, fits bool) {
	var widths []int
	for _, row := range rows {
		for i := range row {
			row[i] = clean(row[i])
			cell := row[i]
			if i == len(widths) {
				widths = append(widths, 0)
			}
			widths[i] = max(widths[i], width(cell))
		}
	}
	fits = true
	for r, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			b.WriteString(pad(cell, widths[i]))
		}
		text := strings.TrimRight(b.String(), " ")
		fits = fits && width(text) <= s.columns()
		first := width(row[0])
		switch {
		case r == 0:
			text = s.paint(inks[0], text)
		case inks[r] != plain && len([]rune(text)) >= first:
			runes := []rune(text)
			text = s.paint(inks[r], string(runes[:first])) + string(runes[first:])
		}
		lines = append(lines, text)
	}
	return lines, fits
}

func (s Screen) stacked(evidence []rollout.Evidence) []string {
	var lines []string
	w := s.columns()
	for _, e := range evidence {
		head := cut(subject(e)+" "+limit(e), w-2)
		lines = append(lines, s.paint(verdictInk(e.Verdict), mark(e.Verdict))+" "+head)
		for _, l := range wrap(Figures(e), w-2) {
			lines = append(lines, s.paint(dim, "  "+l))
		}
	}
	return lines
}

// Figures are a piece of evidence in one line without its check: canary against stable, change, interval and e-value, as far as there are any.
func Figures(e rollout.Evidence) string {
	parts := []string{fmt.Sprintf("%s vs %s", estimate(e.Metric, e.Canary), estimate(e.Metric, e.Stable))}
	if e.Change != nil {
		parts = append(parts, change(e.Change))
	}
	if interval := e.Interval(); interval != "" {
		parts = append(parts, interval)
	}
	if e.EValue != nil {
		parts = append(parts, "e "+number(*e.EValue))
	}
	if note := noteOf(e); note != "" {
		parts = append(parts, note)
	}
	return strings.Join(parts, ", ")
}

// details are what a row of a table has no column for: the interval that the change lies in, and the note.
func details(e rollout.Evidence) string {
	interval, note := e.Interval(), noteOf(e)
	switch {
	case interval == "":
		return note
	case note == "":
		return "the change is " + interval
	}
	return "the change is " + interval + ", " + note
}

// noteOf is what a piece of evidence says beside its numbers. A note of numbers that are shown anyway is left to JSON and YAML.
func noteOf(e rollout.Evidence) string {
	var parts []string
	if e.Allowed != nil {
		parts = append(parts, "up to "+estimate(e.Metric, rollout.Arm{Estimate: e.Allowed})+" by the floor")
	}
	if e.Needed != nil && *e.Needed > 0 {
		parts = append(parts, number(*e.Needed)+" more requests needed")
	}
	if e.Note != "" && (e.Verdict == rollout.NoData || e.Canary.Estimate == nil) {
		parts = append(parts, e.Note)
	}
	return strings.Join(parts, ", ")
}
