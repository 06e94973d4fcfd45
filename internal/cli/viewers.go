package cli

import (
	"fmt"
	"strings"

	"github.com/aviary-rollouts/aviary/rollout"
)

// viewer is how follow shows what it sees: a block that is redrawn on a terminal, a line per change elsewhere, or values for programs.
func (a *app) viewer(quiet bool) viewer {
	_, _, terminal := a.Terminal()
	switch {
	case quiet:
		return quietViewer{a}
	case a.output != "table":
		return &valueViewer{app: a}
	case terminal && a.env("TERM") != "dumb":
		return &blockViewer{app: a}
	}
	return &lineViewer{app: a}
}

// quietViewer shows the end only.
type quietViewer struct{ *app }

func (quietViewer) series() bool    { return false }
func (quietViewer) show(seen) error { return nil }
func (q quietViewer) end(s seen) error {
	return q.emit(s.look.Status, func() { q.say("%s", Outcome(s.look.Status)) })
}

// lineViewer writes a line per change.
type lineViewer struct {
	*app
	verdict rollout.Verdict
	trouble string
}

func (*lineViewer) series() bool { return false }

func (l *lineViewer) show(s seen) error {
	l.decisions(s)
	if s.trouble != l.trouble {
		l.trouble = s.trouble
		if s.trouble == "" {
			s.trouble = "answers again"
		}
		l.say("%s  %s", l.Clock.Now().In(l.Zone).Format("15:04:05"), s.trouble)
	}
	if st := s.look.Status; st.Verdict != l.verdict && !st.Phase.Terminal() && s.Stale == "" {
		l.verdict = st.Verdict
		if st.Verdict != "" {
			l.say("%s  %s  %s  %s  %s %s", l.Clock.Now().In(l.Zone).Format("15:04:05"), pad("verdict", 14), pad(st.Stage, 10),
				pad(st.Weight.String(), 5), mark(st.Verdict), words(st.Verdict))
		}
	}
	return nil
}

func (l *lineViewer) decisions(s seen) {
	for _, d := range s.fresh {
		d.At = d.At.In(l.Zone)
		for _, line := range (Screen{}).Decision(d) {
			l.say("%s", line)
		}
	}
}

func (l *lineViewer) end(s seen) error {
	l.decisions(s)
	if len(s.fresh) > 0 { // the last of them says why
		l.say("%s", ending(s.look.Status))
	} else {
		l.say("%s", Outcome(s.look.Status))
	}
	return nil
}

// blockViewer keeps one block at the bottom of a terminal, and lets decisions scroll by above it.
type blockViewer struct {
	*app
	drawn int // lines of the block on the screen
}

func (*blockViewer) series() bool { return true }

func (b *blockViewer) show(s seen) error { return b.redraw(s, false) }

func (b *blockViewer) end(s seen) error { return b.redraw(s, true) }

func (b *blockViewer) redraw(s seen, last bool) error {
	var out strings.Builder
	if b.drawn > 0 {
		fmt.Fprintf(&out, "\x1b[%dA\r\x1b[J", b.drawn)
	}
	screen := b.screen()
	for _, d := range s.fresh {
		d.At = d.At.In(b.Zone)
		for _, line := range screen.Decision(d) {
			out.WriteString(line + "\n")
		}
	}
	if s.trouble != "" {
		s.Notes = append(s.Notes, s.trouble)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(screen.Status(s.View), "\n"), "\n")
	if _, rows, _ := b.Terminal(); !last && rows > 1 && len(lines) > rows-1 {
		lines = lines[:rows-1] // a block higher than the screen could not be drawn over
	}
	out.WriteString(strings.TrimSuffix(strings.Join(lines, ""), "\n") + "\n")
	b.drawn = len(lines)
	_, err := b.Out.Write([]byte(out.String()))
	return err
}

// valueViewer writes the status whenever it changed: one line of JSON, or a YAML document.
type valueViewer struct {
	*app
	before string
}

func (*valueViewer) series() bool { return false }

func (v *valueViewer) show(s seen) error {
	if s.Stale != "" || s.look.Status.Agent == "" {
		return nil
	}
	text, err := encodeJSON(s.look.Status, "")
	if err != nil || string(text) == v.before {
		return err
	}
	v.before = string(text)
	if v.output == "yaml" {
		if text, err = encode(s.look.Status, "yaml"); err != nil {
			return err
		}
		text = append([]byte("---\n"), text...)
	}
	_, err = v.Out.Write(text)
	return err
}

func (v *valueViewer) end(s seen) error { return v.show(s) }
