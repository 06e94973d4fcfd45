package calibration

import (
	"fmt"
	"strings"
)

// Problem is one thing that is wrong with a file.
type Problem struct {
	File    string
	Line    int // from 1
	Column  string
	Message string // what is wrong, and what is allowed
}

// String is the problem as file:line: column: message.
func (p Problem) String() string {
	if p.Column == "" {
		return fmt.Sprintf("%s:%d: %s", p.File, p.Line, p.Message)
	}
	return fmt.Sprintf("%s:%d: %s: %s", p.File, p.Line, p.Column, p.Message)
}

// Problems are all that is wrong with a file, in the order of its lines.
type Problems []Problem

// mostProblems is how many problems are told: a column that is wrong in one line is wrong in all.
const mostProblems = 20

// Error is every problem, one a line.
func (ps Problems) Error() string {
	var lines []string
	for i, p := range ps {
		if i == mostProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(ps)-i))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// clip keeps a message readable.
func clip(text string) string {
	const most = 60
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}
