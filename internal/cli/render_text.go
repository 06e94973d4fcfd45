package cli

import (
	"math"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/aviary-rollouts/aviary/rollout"
)

// ink is how a piece of text stands out. Plain text stays as it is.
type ink string

const (
	plain  ink = ""
	bold   ink = "1"
	dim    ink = "2"
	red    ink = "31"
	green  ink = "32"
	yellow ink = "33"
	cyan   ink = "36"
)

// paint colours text if the screen has colour. Pad before painting: the escapes have no width.
func (s Screen) paint(i ink, text string) string {
	if !s.Color || i == plain || text == "" {
		return text
	}
	return "\x1b[" + string(i) + "m" + text + "\x1b[0m"
}

// width is the number of columns of a text without escapes. All of what is drawn here is one column a rune.
func width(text string) int { return utf8.RuneCountInString(text) }

// clean takes out what would steer a terminal: what people and other systems write (reasons, names, notes) is shown, not obeyed.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Cf, r):
			return -1
		}
		return r
	}, text)
}

// pad fills text with spaces up to w columns.
func pad(text string, w int) string {
	return text + strings.Repeat(" ", max(0, w-width(text)))
}

// cut cleans text and shortens it to w columns, with an ellipsis where something is missing.
func cut(text string, w int) string {
	text = clean(text)
	if w <= 0 {
		return ""
	}
	if width(text) <= w {
		return text
	}
	return string([]rune(text)[:w-1]) + "…"
}

// wrap cleans text and breaks it at spaces into lines of at most w columns; a longer word is cut.
func wrap(text string, w int) []string {
	var lines []string
	line := ""
	for _, word := range strings.Fields(clean(text)) {
		word = cut(word, w)
		switch {
		case line == "":
			line = word
		case width(line)+1+width(word) <= w:
			line += " " + word
		default:
			lines = append(lines, line)
			line = word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// bar draws a share in [0,1], clamped, in w columns. Anything above nothing shows at least one mark, and only all fills it.
func bar(share float64, w int) string {
	if w <= 0 || math.IsNaN(share) {
		return ""
	}
	full := int(math.Round(share * float64(w)))
	if share > 0 {
		full = max(1, full)
	}
	if share < 1 {
		full = min(w-1, full)
	}
	full = min(max(0, full), w)
	return strings.Repeat("█", full) + strings.Repeat("░", w-full)
}

var sparks = []rune("▁▂▃▄▅▆▇█")

// spark draws values from 0 to top, oldest first, in at most w columns; the greatest of those that share a column is shown. What is
// above top is drawn as top. It is empty without values.
func spark(values []float64, top float64, w int) string {
	values = squeeze(values, w)
	out := make([]rune, len(values))
	for i, v := range values {
		level := 0
		if top > 0 {
			level = int(math.Round(v / top * float64(len(sparks)-1)))
		}
		out[i] = sparks[min(max(0, level), len(sparks)-1)]
	}
	return string(out)
}

// squeeze fits values into w columns by taking the greatest of each column's.
func squeeze(values []float64, w int) []float64 {
	if w <= 0 {
		return nil
	}
	if len(values) <= w {
		return values
	}
	out := make([]float64, w)
	for i := range out {
		from, to := i*len(values)/w, (i+1)*len(values)/w
		out[i] = values[from]
		for _, v := range values[from:to] {
			out[i] = max(out[i], v)
		}
	}
	return out
}

// span is a duration for people: to the second below an hour, to the minute below a day, then in days and hours.
func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second && d%time.Second != 0:
		return d.Round(100 * time.Millisecond).String()
	case d < time.Hour:
		return rollout.Duration(d.Round(time.Second)).String()
	case d < 24*time.Hour:
		return rollout.Duration(d.Round(time.Minute)).String()
	}
	hours := int(d.Round(time.Hour) / time.Hour)
	if hours%24 == 0 {
		return number(float64(hours/24)) + "d"
	}
	return number(float64(hours/24)) + "d" + number(float64(hours%24)) + "h"
}
