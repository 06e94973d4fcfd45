package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Screen is where text is drawn: how wide it is and whether it shows colour. The zero Screen is 100 columns without colour.
type Screen struct {
	Width int // columns; below 20 counts as 20, 0 as 100
	Color bool
}

// View is what one look at a rollout shows.
type View struct {
	Status rollout.Status
	Series []rollout.Point
	Now    time.Time
	Notes  []string // what the reader should know about this look itself, such as that it is old
}

const (
	defaultWidth = 100
	leastWidth   = 20
	maxBar       = 30
	labelWidth   = 10
)

func (s Screen) columns() int {
	if s.Width == 0 {
		return defaultWidth
	}
	return max(leastWidth, s.Width)
}

// Status draws where a rollout stands, in lines no wider than the screen, each ended by a newline.
func (s Screen) Status(v View) string {
	lines := s.head(v)
	if !v.Status.Phase.Terminal() {
		lines = append(lines, s.progress(v)...)
	}
	lines = append(lines, s.trouble(v)...)
	if len(v.Status.Evidence) > 0 {
		lines = append(lines, "")
		lines = append(lines, s.Evidence(v.Status.Evidence, v.Status.Stable, v.Status.Canary)...)
	}
	if sparks := s.sparklines(v); len(sparks) > 0 {
		lines = append(lines, "")
		lines = append(lines, sparks...)
	}
	for _, note := range v.Notes {
		for _, l := range wrap(note, s.columns()) {
			lines = append(lines, s.paint(yellow, l))
		}
	}
	return strings.Join(lines, "\n") + "\n"
}

func (s Screen) head(v View) []string {
	st := v.Status
	title := fmt.Sprintf("%s  %s → %s", st.Agent, st.Stable, st.Canary)
	phase := string(st.Phase)
	if st.Paused != nil && !st.Phase.Terminal() {
		phase += " (paused)"
	}
	w := s.columns()
	var lines []string
	if gap := w - width(title) - width(phase); gap >= 2 {
		lines = append(lines, s.paint(bold, title)+strings.Repeat(" ", min(gap, 4))+s.paint(phaseInk(st), phase))
	} else {
		lines = append(lines, s.paint(bold, cut(title, w)), s.paint(phaseInk(st), cut(phase, w)))
	}
	return append(lines, s.paint(dim, cut(when(v), w)))
}

// when says how old a rollout is, or how long it took.
func when(v View) string {
	st := v.Status
	switch {
	case st.Started.IsZero():
		return "not begun"
	case st.Ended.IsZero():
		return "began " + span(v.Now.Sub(st.Started)) + " ago"
	}
	return fmt.Sprintf("took %s, ended %s ago", span(st.Ended.Sub(st.Started)), span(v.Now.Sub(st.Ended)))
}

func phaseInk(st rollout.Status) ink {
	switch st.Phase {
	case rollout.Promoted:
		return green
	case rollout.Restoring, rollout.RestoreBlocked, rollout.RolledBack, rollout.Aborted, rollout.Canceled, rollout.Rejected:
		return red
	case rollout.AwaitingApproval:
		return yellow
	}
	if st.Paused != nil {
		return yellow
	}
	return cyan
}

// progress draws the stage, the weight and how far the stage has come.
func (s Screen) progress(v View) []string {
	st := v.Status
	lines := []string{s.labeled("stage", plain, stageOf(st))}
	if st.Mirror > 0 {
		lines = append(lines, s.meter("mirror", st.Mirror.Fraction(), st.Mirror.String()+" of stable's requests, copied"))
	} else {
		lines = append(lines, s.meter("weight", st.Weight.Fraction(), st.Weight.String()))
	}
	if st.Stages > 0 && (st.Phase == rollout.Observing || st.Phase == rollout.AwaitingApproval) { // without stages it is only what Temporal remembers
		if st.Duration > 0 {
			text := fmt.Sprintf("%s of %s", span(min(st.Observed, st.Duration).Std()), span(st.Duration.Std()))
			lines = append(lines, s.meter("observed", float64(st.Observed)/float64(st.Duration), text))
		}
		lines = append(lines, s.requests(st))
	}
	if st.Verdict != "" {
		lines = append(lines, s.labeled("verdict", verdictInk(st.Verdict), mark(st.Verdict)+" "+words(st.Verdict)))
	}
	return lines
}

func (s Screen) requests(st rollout.Status) string {
	stable := fmt.Sprintf("stable %s", number(st.Requests.Stable))
	if st.MinRequests <= 0 {
		return s.labeled("requests", plain, fmt.Sprintf("canary %s, %s", number(st.Requests.Canary), stable))
	}
	share := st.Requests.Canary / float64(st.MinRequests)
	return s.meter("requests", share, fmt.Sprintf("%s of %s (%s)", number(st.Requests.Canary), number(float64(st.MinRequests)), stable))
}

func stageOf(st rollout.Status) string {
	switch {
	case st.Stages > 0:
	case st.Stage == "":
		return absent
	default:
		return st.Stage
	}
	return strings.TrimSpace(fmt.Sprintf("%d/%d %s", st.StageIndex+1, st.Stages, st.Stage))
}

func (s Screen) labeled(label string, i ink, text string) string {
	return s.paint(dim, pad(label, labelWidth)) + s.paint(i, cut(text, s.columns()-labelWidth))
}

// meter is a label, a bar and what the bar stands for. The bar gives way first when columns are few.
func (s Screen) meter(label string, share float64, text string) string {
	w := s.columns() - labelWidth
	b := min(maxBar, w-width(text)-2)
	if b < 5 {
		return s.labeled(label, plain, text)
	}
	return s.paint(dim, pad(label, labelWidth)) + s.paint(cyan, bar(share, b)) + "  " + text
}

// trouble draws what keeps a rollout from going on, each with what helps.
func (s Screen) trouble(v View) []string {
	st := v.Status
	var lines []string
	say := func(i ink, format string, args ...any) {
		for _, l := range wrap(fmt.Sprintf(format, args...), s.columns()) {
			lines = append(lines, s.paint(i, l))
		}
	}
	if st.Reason != "" {
		say(phaseInk(st), "%s", st.Reason)
	}
	if st.Phase.Terminal() {
		return lines
	}
	if p := st.Paused; p != nil {
		say(yellow, "paused by %s for %s%s; `starter resume %s` lets it go on", p.By, span(v.Now.Sub(p.Since)), after(p.Reason), st.Agent)
	}
	if st.Phase == rollout.AwaitingApproval {
		say(yellow, "waits for a human: `starter approve %s` or `starter abort %s`", st.Agent, st.Agent)
	}
	if st.Phase == rollout.RestoreBlocked {
		say(red, "stable can't be restored yet, it is tried on and on; `starter retry %s` tries at once", st.Agent)
	}
	switch {
	case st.Hold.IsZero():
	case st.Hold.After(v.Now):
		say(yellow, "settling for another %s after the change of the weight: nothing is compared until then", span(st.Hold.Sub(v.Now)))
	default:
		say(yellow, "holding for %s: the stage is over, and its checks are not met yet", span(v.Now.Sub(st.Hold)))
	}
	for _, t := range []struct{ what, why string }{
		{"frozen", st.Frozen},
		{"the metrics source does not answer", st.SourceDown},
		{"the data plane does not answer", st.PlaneDown},
		{"the comparison is in doubt", st.Mismatch},
		{"violated, and waiting for a human", st.Violation},
	} {
		if t.why != "" {
			say(yellow, "%s: %s", t.what, t.why)
		}
	}
	return lines
}

func after(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

// sparklines draws the weight of evidence, on a logarithmic scale, and the error rates of both versions, on one scale.
func (s Screen) sparklines(v View) []string {
	if len(v.Series) < 2 {
		return nil
	}
	evidence := make([]float64, len(v.Series))
	for i, p := range v.Series {
		evidence[i] = math.Log1p(max(0, p.EValue))
	}
	var lines []string
	if top := slices.Max(evidence); top > 0 {
		lines = append(lines, s.sparkline("e-value", evidence, top, number(v.Series[len(v.Series)-1].EValue)))
	}
	rates := [2][]float64{valuesOf(v.Series, "error_rate", 0), valuesOf(v.Series, "error_rate", 1)}
	if len(rates[0]) < 2 {
		return lines
	}
	top := max(slices.Max(rates[0]), slices.Max(rates[1]))
	for arm, name := range []string{v.Status.Stable, v.Status.Canary} {
		lines = append(lines, s.sparkline("error_rate", rates[arm], top, percent(rates[arm][len(rates[arm])-1])+" "+name))
	}
	return lines
}

func valuesOf(series []rollout.Point, metric string, arm int) []float64 {
	var out []float64
	for _, p := range series {
		if pair, ok := p.Values[metric]; ok {
			out = append(out, pair[arm])
		}
	}
	return out
}

func (s Screen) sparkline(label string, values []float64, top float64, text string) string {
	w := labelWidth + 2
	room := s.columns() - w - width(text) - 2
	if room < 5 {
		return s.paint(dim, pad(label, w)) + cut(text, s.columns()-w)
	}
	return s.paint(dim, pad(label, w)) + s.paint(cyan, spark(values, top, min(60, room))) + "  " + text
}
