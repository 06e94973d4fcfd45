package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxProblems bounds how many problems are told of one file.
const maxProblems = 100

// Problem is one thing that is wrong in a file, a flag or a Spec.
type Problem struct {
	File    string // name of the file, or "--agent" and the like for a flag; empty for a Spec that came as JSON
	Line    int    // from 1; 0 where there are no lines
	Path    string // such as canary_stages[1].weight; empty for the file as a whole
	Message string // what is wrong, and what is allowed
}

// String is the problem as file:line: path: message, without the parts that are empty.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	return b.String()
}

// Problems are all the problems of one input, in the order of its lines. As an error it is never empty.
type Problems []Problem

// Error is every problem, one a line.
func (ps Problems) Error() string {
	lines := make([]string, 0, len(ps))
	for i, p := range ps {
		if i == maxProblems {
			lines = append(lines, fmt.Sprintf("and %d more", len(ps)-i))
			break
		}
		lines = append(lines, p.String())
	}
	return strings.Join(lines, "\n")
}

// err is the problems as an error, sorted; nil if there are none.
func (ps Problems) err() error {
	if len(ps) == 0 {
		return nil
	}
	slices.SortStableFunc(ps, func(a, b Problem) int { return a.Line - b.Line })
	return ps
}

// report takes in a problem with what stands at path.
type report func(path, format string, args ...any)

// under is report for what lies below path.
func (r report) under(path string) report {
	return func(sub, format string, args ...any) { r(join(path, sub), format, args...) }
}

// join puts two parts of a path together.
func join(path, sub string) string {
	if path == "" || sub == "" || sub[0] == '[' {
		return path + sub
	}
	return path + "." + sub
}

// child is the path of a key of somebody's choice, which may hold anything.
func child(path, key string) string {
	if key == "" {
		key = `""`
	}
	return join(path, clip(key))
}

// quote shows what somebody wrote, cut short.
func quote(s string) string {
	const limit = 60
	if len(s) <= limit {
		return fmt.Sprintf("%q", s)
	}
	return fmt.Sprintf("%q…", strings.ToValidUTF8(s[:limit], ""))
}

// oneOf is a list of what is allowed, for messages.
func oneOf[T ~string](allowed ...T) string {
	var b strings.Builder
	for i, a := range allowed {
		switch {
		case i == 0:
		case i == len(allowed)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		b.WriteString(string(a))
	}
	return b.String()
}
