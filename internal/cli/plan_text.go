package cli

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/plan"
	"github.com/aviary-rollouts/aviary/rollout"
)

// plan draws what can be expected of a rollout, in lines of at most 80 columns.
func (s Screen) plan(spec rollout.Spec, p *plan.Plan) []string {
	s.Width = min(s.columns(), reportWidth)
	lines := wrap(fmt.Sprintf("%s %s → %s: %s at %s requests/s", spec.Agent, spec.Stable, spec.Canary, stagesOf(len(p.Stages)), number(p.RPS)), s.columns())
	lines = append(lines, "")
	lines = append(lines, wrap(summary(p), s.columns())...)
	for _, why := range p.Undecided {
		lines = append(lines, s.bullet("- ", why)...)
	}
	if len(p.Warnings) > 0 {
		lines = append(lines, "")
	}
	for _, w := range p.Warnings {
		lines = append(lines, s.bullet("! ", w)...)
	}
	lines = append(lines, "", s.paint(bold, "Stages (requests: the canary's; held: canaries like stable, by chance)"))
	lines = append(lines, s.stages(spec, p)...)
	if len(p.Catches) > 0 {
		lines = append(lines, "", s.paint(bold, "A regression from the start: caught after (half of the times), and in all"))
		lines = append(lines, s.catches(p)...)
		lines = append(lines, "", s.paint(bold, "By stage: what it excludes, how soon it catches what sets in as it begins"))
		lines = append(lines, s.legs(spec, p)...)
		lines = append(lines, s.bullet("", footnote(p))...)
	}
	if len(p.Rules) > 0 {
		lines = append(lines, "", s.paint(bold, "Rules on counted events"))
	}
	for _, r := range p.Rules {
		lines = append(lines, s.bullet("", ruleWords(r))...)
	}
	lines = append(lines, "", s.paint(bold, "Taken for stable"))
	return append(lines, s.bases(p)...)
}

// stagesOf counts stages.
func stagesOf(n int) string {
	if n == 1 {
		return "1 stage"
	}
	return fmt.Sprintf("%d stages", n)
}

// footnote explains the table of the stages.
func footnote(p *plan.Plan) string {
	out := "80% at: the smallest regression that is caught with a chance of 80%. ·: none. In brackets: longer than the stage takes. " +
		"*: asked at the stage's end. (own): a limit on the canary alone. Excludes: as much of what the check limits is shown not to be there."
	if p.Floor > 0 {
		out += fmt.Sprintf(" Rates relative to stable may be %s worse on top (floor).", number(p.Floor))
	}
	return out
}

// bullet is a paragraph behind a mark.
func (s Screen) bullet(mark, text string) []string {
	var lines []string
	for i, line := range wrap(text, s.columns()-width(mark)) {
		if i > 0 {
			mark = strings.Repeat(" ", width(mark))
		}
		lines = append(lines, mark+line)
	}
	return lines
}

// summary is the plan in words.
func summary(p *plan.Plan) string {
	var b strings.Builder
	if p.Decides {
		b.WriteString("Decides: yes. ")
	} else {
		b.WriteString("Decides: no. ")
	}
	fmt.Fprintf(&b, "Takes about %s", plan.Say(p.Takes))
	if p.Takes > p.Planned*1.005 {
		fmt.Fprintf(&b, ", the durations alone %s", plan.Say(p.Planned))
	}
	switch {
	case p.Approvals == 1:
		b.WriteString(", and one approval")
	case p.Approvals > 1:
		fmt.Fprintf(&b, ", and %d approvals", p.Approvals)
	}
	b.WriteString(". ")
	switch {
	case p.Threshold != nil:
		fmt.Fprintf(&b, "The raw threshold rule takes a canary that is the same as stable back in about %s of all rollouts.", percent(*p.Threshold))
	case p.Alpha > 0:
		fmt.Fprintf(&b, "A canary that keeps its limits is taken back by the tests with a chance of at most %s.", percent(p.Alpha))
	}
	if !p.Decides {
		b.WriteString(" It can't decide because:")
	}
	return b.String()
}

// stages is a line per stage.
func (s Screen) stages(spec rollout.Spec, p *plan.Plan) []string {
	rows := [][]string{{"stage", "weight", "takes", "requests", "held", "as long as"}}
	inks := []ink{dim}
	for i, l := range p.Stages {
		because := l.Because
		if because == "duration" {
			because = ""
		}
		rows = append(rows, []string{cut(l.Name, 16), spec.Stages[i].Share(), lasts(l.Takes), number(math.Round(l.Requests)), rough(l.Held), cut(because, 26)})
		inks = append(inks, plain)
	}
	lines, _ := s.table(rows, inks)
	return lines
}

// rough is a chance in whole percent.
func rough(x float64) string {
	switch {
	case x <= 0:
		return "0%"
	case x < 0.01:
		return "<1%"
	case x > 0.99 && x < 1:
		return ">99%"
	}
	return percent(math.Round(x*100) / 100)
}

// mostSpan is the longest time that is written down.
const mostSpan = 999 * 24 * time.Hour

// lasts is a time in seconds.
func lasts(seconds float64) string {
	if seconds > mostSpan.Seconds() {
		return ">999d"
	}
	d := inSeconds(seconds)
	switch {
	case d >= 48*time.Hour:
		return number(math.Round(d.Hours()/24)) + "d"
	case d >= 10*time.Hour:
		d = d.Round(time.Hour)
	case d >= 10*time.Minute:
		d = d.Round(time.Minute)
	case d >= time.Minute:
		d = d.Round(10 * time.Second)
	default:
		d = d.Round(time.Second)
	}
	return span(d)
}

// catches is a line per metric and kind of limit, a column per factor.
func (s Screen) catches(p *plan.Plan) []string {
	head := []string{"metric", "80% at"}
	for _, f := range plan.Factors {
		head = append(head, "×"+number(f))
	}
	rows, inks := [][]string{head}, []ink{dim}
	for _, c := range p.Catches {
		row := []string{c.Metric, absent}
		if !c.Relative {
			row[0] = cut(row[0], 18) + " (own)"
		}
		if c.Smallest != nil {
			row[1] = "×" + number(*c.Smallest)
		}
		for _, sp := range c.Speeds {
			row = append(row, caughtIn(sp))
		}
		rows, inks = append(rows, row), append(inks, plain)
	}
	lines, _ := s.table(rows, inks)
	return lines
}

// caughtIn is how soon, and how surely.
func caughtIn(sp plan.Speed) string {
	switch {
	case sp.Allowed:
		return "allowed"
	case sp.Blind:
		return "blind"
	case sp.Median == nil:
		return absent + " " + rough(sp.Chance)
	}
	return lasts(*sp.Median) + " " + rough(sp.Chance)
}

// legs is a block per stage, a line per check.
func (s Screen) legs(spec rollout.Spec, p *plan.Plan) []string {
	head := []string{"", "excludes"}
	for _, f := range plan.Factors {
		head = append(head, "×"+number(f))
	}
	rows, inks := [][]string{head}, []ink{dim}
	for i, l := range p.Stages {
		rows, inks = append(rows, []string{fmt.Sprintf("%s (%s, %s)", cut(l.Name, 20), spec.Stages[i].Share(), lasts(l.Takes))}), append(inks, cyan)
		tested := 0
		for _, c := range l.Checks {
			if !slices.ContainsFunc(c.Speeds, func(sp plan.Speed) bool { return !sp.Blind }) {
				continue
			}
			tested++
			name := " " + tight.Replace(c.Check)
			if c.Role == analysis.RolePromotion {
				name += "*"
			}
			row := []string{cut(name, 34), ruledOut(c)}
			for _, sp := range c.Speeds {
				row = append(row, speed(sp, l.Takes))
			}
			rows, inks = append(rows, row), append(inks, plain)
		}
		if tested == 0 {
			rows, inks = append(rows, []string{" nothing to compare with"}), append(inks, dim)
		}
	}
	lines, _ := s.table(rows, inks)
	return lines
}

// tight writes a check in few columns.
var tight = strings.NewReplacer("task_completion_rate", "task_completion", " ", "")

// ruledOut is in the terms of the check: a change, or the metric's own unit.
func ruledOut(c plan.Seen) string {
	if c.RulesOut == nil {
		return absent
	}
	m := checkForm.FindStringSubmatch(c.Check)
	if m == nil || m[2] == "" {
		return inUnits(c.Metric, *c.RulesOut)
	}
	return percent(math.Ceil(*c.RulesOut*1000) / 1000)
}

// speed is how soon a check catches something in a stage that takes so long.
func speed(sp plan.Speed, takes float64) string {
	switch {
	case sp.Allowed:
		return "allowed"
	case sp.Blind:
		return "blind"
	case sp.Median == nil:
		return absent
	case *sp.Median > takes:
		return "(" + lasts(*sp.Median) + ")"
	}
	return lasts(*sp.Median)
}

// ruleWords says what a rule does to a canary like stable.
func ruleWords(r plan.Rule) string {
	out := fmt.Sprintf("%s looks at about %s canary requests. ", r.Check, number(math.Round(r.Requests)))
	switch {
	case r.Chance != nil:
		return out + fmt.Sprintf("A canary like stable, with %s a request, breaks it in %s of all rollouts.", number(*r.Rate), percent(*r.Chance))
	case r.Tolerable == nil:
		return out
	}
	return out + fmt.Sprintf("How many stable has is not known (--base %s=RATE): if it is more than one in %s requests, over 1%% of all rollouts are taken back for what stable does as well.",
		r.Metric, number(twoDigits(1 / *r.Tolerable)))
}

// twoDigits is x rounded to two digits that count.
func twoDigits(x float64) float64 {
	if x <= 0 || math.IsInf(x, 0) {
		return x
	}
	unit := math.Pow(10, math.Floor(math.Log10(x))-1)
	return math.Round(x/unit) * unit
}

// bases is a line per metric.
func (s Screen) bases(p *plan.Plan) []string {
	rows := [][]string{{"metric", "value", "spread", "per request", "φ", ""}}
	inks := []ink{dim}
	for _, m := range p.Metrics {
		row := []string{m.Name, absent, absent, number(m.Share), number(m.Phi), ""}
		if m.Value != nil {
			row[1] = inUnits(m.Name, *m.Value)
		}
		if m.Spread > 0 {
			row[2] = number(m.Spread)
		}
		if m.Assumed {
			row[5] = "assumed"
		}
		rows, inks = append(rows, row), append(inks, plain)
	}
	lines, _ := s.table(rows, inks)
	return lines
}
