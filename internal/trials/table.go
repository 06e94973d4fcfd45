package trials

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"gonum.org/v1/gonum/stat/distuv"
)

// Table is a result for people.
type Table struct {
	Title string
	Head  []string
	Rows  [][]string
	Notes []string // sentences below it
}

// Markdown writes the table with a heading of the third level.
func (t Table) Markdown() string {
	widths := make([]int, len(t.Head))
	for _, row := range append([][]string{t.Head}, t.Rows...) {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "### %s\n\n", t.Title)
	line := func(cells []string) {
		for i, width := range widths {
			cell := ""
			if i < len(cells) {
				cell = cells[i]
			}
			fmt.Fprintf(&b, "| %s%s ", cell, strings.Repeat(" ", width-utf8.RuneCountInString(cell)))
		}
		b.WriteString("|\n")
	}
	line(t.Head)
	for _, width := range widths {
		fmt.Fprintf(&b, "|%s", strings.Repeat("-", width+2))
	}
	b.WriteString("|\n")
	for _, row := range t.Rows {
		line(row)
	}
	for _, note := range t.Notes {
		fmt.Fprintf(&b, "\n%s\n", note)
	}
	return b.String()
}

const none = "–"

// share writes k of n as a fraction.
func share(k, n int) string {
	if n == 0 {
		return none
	}
	return number(float64(k) / float64(n))
}

// number writes three digits.
func number(x float64) string {
	switch {
	case math.IsNaN(x) || math.IsInf(x, 0):
		return none
	case math.Abs(x) >= 100 || x == math.Trunc(x):
		return strconv.FormatFloat(math.Round(x), 'f', -1, 64)
	}
	return strconv.FormatFloat(x, 'g', 3, 64)
}

// span writes a duration in the unit that people would.
func span(d time.Duration) string {
	s := d.Seconds()
	switch {
	case d == never:
		return none
	case s < 120:
		return number(s) + " s"
	case s < 2*3600:
		return number(s/60) + " min"
	case s < 2*86400:
		return number(s/3600) + " h"
	}
	return number(s/86400) + " d"
}

// within counts the times of at most a limit.
func within(times []time.Duration, limit time.Duration) int {
	n := 0
	for _, t := range times {
		if t <= limit && t != never {
			n++
		}
	}
	return n
}

// quantileOf is the least time that at least a share q of all times, never included, don't exceed. It is never without times.
func quantileOf(times []time.Duration, q float64) time.Duration {
	if len(times) == 0 {
		return never
	}
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)-1, max(0, int(math.Ceil(q*float64(len(sorted))))-1))]
}

// mostLikely is the upper end of the exact one-sided 95 % confidence interval of a chance, from k of n: Clopper & Pearson, "The use of confidence
// or fiducial limits illustrated in the case of the binomial" (1934).
func mostLikely(k, n int) float64 {
	if k >= n {
		return 1
	}
	return distuv.Beta{Alpha: float64(k + 1), Beta: float64(n - k)}.Quantile(0.95)
}

// rate names a rate of traffic.
func rate(rps float64) string { return number(rps) + " rps" }
