package prometheus

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/common/model"
)

// selector picks series: a metric's name and label matchers. It is parsed here and matched here, so that one query for all of
// a rollout's metrics serves every selector from one moment, and no text of a rollout reaches a query unparsed.
type selector struct {
	name     string
	matchers []matcher
}

type matcher struct {
	label   string
	op      string // = != =~ !~
	value   string
	pattern *regexp.Regexp // of =~ and !~
}

var (
	metricName = regexp.MustCompile(`^[a-zA-Z_:][a-zA-Z0-9_:]*`)
	labelName  = regexp.MustCompile(`^[a-zA-Z_][a-zA-Z0-9_]*`)
	operator   = regexp.MustCompile(`^(=~|!~|!=|=)`)
)

// parseSelector reads a selector such as `agent_tool_calls_total{outcome="error"}`. The labels in reserved are not allowed in
// it. Errors say where in the text.
func parseSelector(text string, reserved ...string) (selector, error) {
	p := parser{text: text, rest: strings.TrimSpace(text)}
	s := selector{name: p.take(metricName)}
	if s.name == "" {
		return selector{}, p.errorf("want a metric's name")
	}
	if p.rest == "" {
		return s, nil
	}
	if !p.skip("{") {
		return selector{}, p.errorf("want { after the name, or nothing")
	}
	for !p.skip("}") {
		m, err := p.matcher(reserved)
		if err != nil {
			return selector{}, err
		}
		s.matchers = append(s.matchers, m)
		if !p.skip(",") && !strings.HasPrefix(p.rest, "}") {
			return selector{}, p.errorf("want , or }")
		}
	}
	if p.rest != "" {
		return selector{}, p.errorf("want nothing after }")
	}
	return s, nil
}

type parser struct{ text, rest string }

func (p *parser) errorf(format string, args ...any) error {
	at := len(p.text) - len(strings.TrimRight(p.rest, " ")) + 1
	return fmt.Errorf("selector %q at column %d: %s", p.text, at, fmt.Sprintf(format, args...))
}

// take cuts what re matches off the front, and the space after it.
func (p *parser) take(re *regexp.Regexp) string {
	got := re.FindString(p.rest)
	p.rest = strings.TrimLeft(p.rest[len(got):], " \t\r\n")
	return got
}

func (p *parser) skip(s string) bool {
	rest, ok := strings.CutPrefix(p.rest, s)
	if ok {
		p.rest = strings.TrimLeft(rest, " \t\r\n")
	}
	return ok
}

func (p *parser) matcher(reserved []string) (matcher, error) {
	m := matcher{label: p.take(labelName)}
	switch {
	case m.label == "":
		return m, p.errorf("want a label's name")
	case m.label == model.MetricNameLabel || slices.Contains(reserved, m.label):
		return m, p.errorf("the label %s is filled in by itself, want it left out", m.label)
	}
	if m.op = p.take(operator); m.op == "" {
		return m, p.errorf("want =, !=, =~ or !~")
	}
	var err error
	if m.value, err = p.quoted(); err != nil {
		return m, err
	}
	if m.op == "=~" || m.op == "!~" {
		if m.pattern, err = regexp.Compile("^(?s:" + m.value + ")$"); err != nil {
			return m, p.errorf("%q is no regular expression", m.value)
		}
	}
	return m, nil
}

// quoted reads a string in double quotes, single quotes or backquotes, with the escapes of Go.
func (p *parser) quoted() (string, error) {
	if p.rest == "" || !strings.ContainsRune("\"'`", rune(p.rest[0])) {
		return "", p.errorf("want a value in quotes")
	}
	quote, end := p.rest[0], 1
	for end < len(p.rest) && p.rest[end] != quote {
		if p.rest[end] == '\\' && quote != '`' {
			end++
		}
		end++
	}
	if end >= len(p.rest) {
		return "", p.errorf("the quote is not closed")
	}
	inner := p.rest[1:end]
	if quote == '\'' {
		inner = strings.ReplaceAll(strings.ReplaceAll(inner, `\'`, `'`), `"`, `\"`)
		quote = '"'
	}
	value, err := strconv.Unquote(string(quote) + inner + string(quote))
	if err != nil {
		return "", p.errorf("the value is no string")
	}
	p.rest = strings.TrimLeft(p.rest[end+1:], " \t\r\n")
	return value, nil
}

// suffixed is s with more at the end of its name: _bucket, of a histogram.
func (s selector) suffixed(more string) selector {
	return selector{name: s.name + more, matchers: s.matchers}
}

// matches reports whether s picks the series. A label that is not there counts as empty.
func (s selector) matches(labels model.Metric) bool {
	if string(labels[model.MetricNameLabel]) != s.name {
		return false
	}
	for _, m := range s.matchers {
		value := string(labels[model.LabelName(m.label)])
		var ok bool
		switch m.op {
		case "=":
			ok = value == m.value
		case "!=":
			ok = value != m.value
		case "=~":
			ok = m.pattern.MatchString(value)
		case "!~":
			ok = !m.pattern.MatchString(value)
		}
		if !ok {
			return false
		}
	}
	return true
}

// oneOf is a matcher in PromQL for one of the values, which are quoted for both the pattern and the string.
func oneOf(label string, values []string) string {
	patterns := make([]string, len(values))
	for i, v := range values {
		patterns[i] = regexp.QuoteMeta(v)
	}
	return label + "=~" + strconv.Quote(strings.Join(patterns, "|"))
}
