package slack

import (
	"fmt"
	"math"
	"sort"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/slack-go/slack"

	"github.com/aviary-rollouts/aviary/rollout"
)

// Slack's limits, in characters.
const (
	maxHeader  = 150
	maxSection = 3000
	maxWord    = 80   // of a name inside a line
	maxReason  = 1000 // of a sentence
)

var emoji = map[rollout.Urgency]string{
	rollout.Info:  ":information_source:",
	rollout.Warn:  ":warning:",
	rollout.Alert: ":rotating_light:",
}

// icon is the notice's urgency as an emoji.
func icon(n rollout.Notice) string {
	if n.Urgency == rollout.Info && n.Status.Phase == rollout.Promoted {
		return ":white_check_mark:"
	}
	return emoji[n.Urgency]
}

// summary is the notice in one line, for notifications and screen readers.
func summary(n rollout.Notice) string {
	return fmt.Sprintf("%s %s %s → %s: %s", icon(n), mrkdwn(n.Agent, maxWord), mrkdwn(n.Stable, maxWord), mrkdwn(n.Canary, maxWord), decision(n))
}

// decision is the notice's decision in one line of markup.
func decision(n rollout.Notice) string {
	d := n.Decision
	line := "*" + mrkdwn(words(string(d.Kind)), maxWord) + "*"
	if d.By != "" {
		line += " by " + mrkdwn(d.By, maxWord)
	}
	if d.Reason != "" {
		line += ": " + mrkdwn(d.Reason, maxReason)
	}
	return line
}

// parentBlocks show where the rollout stands now.
func parentBlocks(n rollout.Notice) []slack.Block {
	title := fmt.Sprintf("%s %s: %s → %s", icon(n), plain(n.Agent, 40), plain(n.Stable, 40), plain(n.Canary, 40))
	header := slack.NewHeaderBlock(slack.NewTextBlockObject(slack.PlainTextType, plain(title, maxHeader), true, false))
	evidence := n.Status.Evidence
	if len(evidence) == 0 {
		evidence = n.Decision.Evidence
	}
	return finish(n, evidence, header, section(state(n.Status)), section("Last: "+decision(n)))
}

// replyBlocks show what was just decided, and why.
func replyBlocks(n rollout.Notice) []slack.Block {
	return finish(n, n.Decision.Evidence, section(icon(n)+" "+decision(n)))
}

func finish(n rollout.Notice, evidence []rollout.Evidence, blocks ...slack.Block) []slack.Block {
	if len(evidence) > 0 {
		blocks = append(blocks, section(table(evidence)))
	}
	return append(blocks, slack.NewContextBlock("", markup(next(n))))
}

// state is the rollout's state in a few lines of markup.
func state(s rollout.Status) string {
	line := fmt.Sprintf("*%s* · canary weight *%s*", mrkdwn(words(string(s.Phase)), maxWord), s.Weight)
	if s.Stages > 0 && s.Stage != "" {
		line += fmt.Sprintf(" · stage %d/%d `%s`", s.StageIndex+1, s.Stages, mrkdwn(s.Stage, maxWord))
	}
	lines := []string{line}
	if s.Stage != "" {
		lines = append(lines, fmt.Sprintf("observed %s of %s · requests %s stable, %s canary",
			s.Observed, s.Duration, number(s.Requests.Stable), number(s.Requests.Canary)))
	}
	if s.Paused != nil {
		lines = append(lines, fmt.Sprintf("paused by %s: %s", mrkdwn(s.Paused.By, maxWord), mrkdwn(s.Paused.Reason, 300)))
	}
	for _, note := range []struct{ what, text string }{
		{"frozen", s.Frozen}, {"metrics source", s.SourceDown}, {"data plane", s.PlaneDown}, {"in doubt", s.Mismatch}, {"outcome", words(string(s.Outcome))}, {"because", s.Reason},
	} {
		if note.text != "" {
			lines = append(lines, note.what+": "+mrkdwn(note.text, 300))
		}
	}
	return strings.Join(lines, "\n")
}

// next says what a human can do now.
func next(n rollout.Notice) string {
	verbs := []string{"status"}
	s := n.Status
	switch {
	case s.Phase.Terminal(), s.Phase == rollout.Restoring:
	case s.Phase == rollout.RestoreBlocked:
		verbs = append(verbs, "retry")
	default:
		if s.Phase == rollout.AwaitingApproval {
			verbs = append(verbs, "approve")
		}
		if s.Paused != nil {
			verbs = append(verbs, "resume")
		}
		verbs = append(verbs, "abort")
	}
	agent := mrkdwn(n.Agent, maxWord)
	for i, v := range verbs {
		verbs[i] = "`starter " + v + " " + agent + "`"
	}
	return strings.Join(verbs, " · ")
}

// limit is what a check's limit is, and that only the floor lets its change pass.
func limit(e rollout.Evidence) string {
	if e.Allowed != nil {
		return number(e.Limit) + " and the floor"
	}
	return number(e.Limit)
}

var severity = map[rollout.Verdict]int{rollout.Violated: 0, rollout.Undecided: 1, rollout.NoData: 2, rollout.Met: 3}

// table is the evidence as preformatted text, the worst first, as many rows as Slack takes.
func table(evidence []rollout.Evidence) string {
	sorted := append([]rollout.Evidence(nil), evidence...)
	sort.SliceStable(sorted, func(i, j int) bool { return severity[sorted[i].Verdict] < severity[sorted[j].Verdict] })
	rows := [][]string{{"verdict", "check", "stable", "canary", "change", "limit", "e-value", "interval", "requests to go"}}
	for _, e := range sorted {
		rows = append(rows, []string{
			plain(string(e.Verdict), 10), plain(e.Check, 48), arm(e.Stable), arm(e.Canary), change(e.Change), limit(e), optional(e.EValue),
			e.Interval(), needed(e.Needed),
		})
	}
	width := make([]int, len(rows[0]))
	for _, row := range rows[1:] {
		for i, cell := range row {
			if cell != "" {
				width[i] = max(width[i], utf8.RuneCountInString(cell), utf8.RuneCountInString(rows[0][i]))
			}
		}
	}
	const fence, room = "```", 40 // room for the fences and for saying what is left out
	out := fence
	for i, row := range rows {
		var line strings.Builder
		for j, cell := range row {
			if width[j] == 0 {
				continue // nothing of it is known
			}
			line.WriteString(cell + strings.Repeat(" ", width[j]-utf8.RuneCountInString(cell)+2))
		}
		text := mrkdwn(strings.TrimRight(line.String(), " "), maxSection)
		if utf8.RuneCountInString(out)+utf8.RuneCountInString(text) > maxSection-room {
			return out + fmt.Sprintf("\n… and %d more%s", len(rows)-i, fence)
		}
		out += "\n" + text
	}
	return out + "\n" + fence
}

// arm is one version's numbers: events of trials, and the estimate.
func arm(a rollout.Arm) string {
	s := number(a.X) + "/" + number(a.N)
	if a.Estimate != nil {
		s += " = " + number(*a.Estimate)
	}
	return s
}

// change is a relative change in percent.
func change(f *float64) string {
	if f == nil {
		return "-"
	}
	return fmt.Sprintf("%+.3g%%", *f*100)
}

// needed is how many more canary requests it takes; empty where none do.
func needed(f *float64) string {
	if f == nil || *f <= 0 {
		return ""
	}
	return number(*f)
}

func optional(f *float64) string {
	if f == nil {
		return "-"
	}
	return number(*f)
}

// number is a count in full, anything else to four digits.
func number(f float64) string {
	if f == math.Trunc(f) && math.Abs(f) < 1e12 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return strconv.FormatFloat(f, 'g', 4, 64)
}

// words turns a wire name into words.
func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

func section(text string) *slack.SectionBlock {
	return slack.NewSectionBlock(markup(text), nil, nil)
}

// markup is text whose foreign parts are safe already. Verbatim: Slack links no names or addresses by itself.
func markup(text string) *slack.TextBlockObject {
	return slack.NewTextBlockObject(slack.MarkdownType, text, false, true)
}
