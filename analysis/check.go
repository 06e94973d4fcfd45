package analysis

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Change says how a check compares the canary with stable. It is empty for the canary's own value.
type Change string

// The changes. All are relative to stable, and bigger is more of the named thing.
const (
	Increase   Change = "increase"
	Decrease   Change = "decrease"
	Drop       Change = "drop"       // a decrease
	Regression Change = "regression" // in the metric's bad direction
)

var changes = []Change{Increase, Decrease, Drop, Regression}

// Op compares a value with a limit.
type Op string

// The comparisons, in the order in which they are looked for.
const (
	AtMost  Op = "<="
	AtLeast Op = ">="
	Equal   Op = "=="
	Below   Op = "<"
	Above   Op = ">"
)

var ops = []Op{AtMost, AtLeast, Equal, Below, Above}

// isUpper reports whether the limit is one from above.
func (op Op) isUpper() bool { return op == Below || op == AtMost }

// holds is x op limit.
func (op Op) holds(x, limit float64) bool {
	switch op {
	case AtMost:
		return x <= limit
	case AtLeast:
		return x >= limit
	case Equal:
		return x == limit
	case Below:
		return x < limit
	default:
		return x > limit
	}
}

// Check is a requirement on a metric, such as error_rate_increase < 0.10.
type Check struct {
	Text   string // as it was written, without space around it
	Metric string // with its full name
	Change Change
	Op     Op
	Limit  float64 // finite
}

// Bounds on what is read.
const (
	maxText = 200 // bytes of a check or condition
	maxName = 64  // bytes of a metric's name
)

const checkForm = "METRIC[_increase|_decrease|_drop|_regression] (<|<=|>|>=|==) NUMBER"

// ParseCheck reads a check of the form METRIC[_increase|_decrease|_drop|_regression] (<|<=|>|>=|==) NUMBER. The metric
// task_completion is short for task_completion_rate. An error says what is wrong and what is allowed. Whether the metric exists
// and the comparison makes sense for it is for Validate.
func ParseCheck(text string) (Check, error) {
	left, op, limit, err := split(text, checkForm)
	if err != nil {
		return Check{}, err
	}
	metric, change := cutChange(left)
	if _, more := cutChange(metric); more != "" || metric == "" {
		return Check{}, fmt.Errorf("%q is not a metric with at most one change, want %s", left, checkForm)
	}
	if change != "" {
		if limit < 0 {
			return Check{}, fmt.Errorf("%q has a negative limit, want 0 or more; to ask for an improvement, name what there is to be more of and how much: %s_decrease > 0.1 where less is better, %s_increase > 0.1 where more is", strings.TrimSpace(text), metric, metric)
		}
		if op == Equal {
			return Check{}, fmt.Errorf("%q wants a change to be equal to a number, want one of <, <=, >, >=", strings.TrimSpace(text))
		}
	}
	return Check{Text: strings.TrimSpace(text), Metric: fullName(metric), Change: change, Op: op, Limit: limit}, nil
}

// fullName is the name of a metric that may have been abbreviated.
func fullName(metric string) string {
	if metric == "task_completion" {
		return "task_completion_rate"
	}
	return metric
}

// cutChange separates a metric from the change at its end.
func cutChange(name string) (metric string, change Change) {
	for _, c := range changes {
		if metric, found := strings.CutSuffix(name, "_"+string(c)); found {
			return metric, c
		}
	}
	return name, ""
}

// split reads NAME OP NUMBER.
func split(text, form string) (name string, op Op, limit float64, err error) {
	if len(text) > maxText {
		return "", "", 0, fmt.Errorf("%d bytes are too long, want %s in at most %d", len(text), form, maxText)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", "", 0, fmt.Errorf("it is empty, want %s", form)
	}
	at := strings.IndexAny(text, "<>=!≤≥")
	if at < 0 {
		return "", "", 0, fmt.Errorf("%q compares nothing, want %s", text, form)
	}
	name = strings.TrimSpace(text[:at])
	op, number, err := cutOp(text[at:], form)
	if err != nil {
		return "", "", 0, err
	}
	if err := checkName(name, form); err != nil {
		return "", "", 0, err
	}
	limit, err = parseLimit(number)
	return name, op, limit, err
}

// cutOp separates the comparison at the front from the rest.
func cutOp(text, form string) (Op, string, error) {
	for _, op := range ops {
		rest, found := strings.CutPrefix(text, string(op))
		if found && !strings.ContainsAny(rest, "<>=!") {
			return op, strings.TrimSpace(rest), nil
		}
	}
	return "", "", fmt.Errorf("%q is not one comparison, want %s", text, form)
}

// checkName wants lower-case letters, digits and underscores.
func checkName(name, form string) error {
	if name == "" {
		return fmt.Errorf("the metric is missing, want %s", form)
	}
	if len(name) > maxName+len("_regression") {
		return fmt.Errorf("%q is too long for a metric, want at most %d bytes", name, maxName)
	}
	for i, r := range name {
		letter := r >= 'a' && r <= 'z'
		if !letter && (i == 0 || (r != '_' && (r < '0' || r > '9'))) {
			return fmt.Errorf("%q is not a metric, want lower-case letters, digits and underscores after a letter, as in %s", name, form)
		}
	}
	return nil
}

// parseLimit reads a finite decimal number.
func parseLimit(text string) (float64, error) {
	if share, found := strings.CutSuffix(text, "%"); found {
		if x, err := strconv.ParseFloat(strings.TrimSpace(share), 64); err == nil && finite(x) {
			return 0, fmt.Errorf("%q is a percentage, want a fraction: %s", text, number(x/100))
		}
	}
	x, err := strconv.ParseFloat(text, 64)
	if err != nil || !finite(x) || strings.ContainsAny(text, "xXpP_") {
		return 0, fmt.Errorf("%q is not a limit, want a finite decimal number such as 0.10", text)
	}
	return x + 0, nil // no negative zero
}

// number writes a number as people do.
func number(x float64) string { return strconv.FormatFloat(x, 'g', 6, 64) }

// find is the metric of a name.
func find(metrics []Metric, name string) (Metric, error) {
	i := slices.IndexFunc(metrics, func(m Metric) bool { return m.Name == name })
	if i < 0 {
		names := make([]string, len(metrics))
		for i, m := range metrics {
			names[i] = m.Name
		}
		return Metric{}, fmt.Errorf("%q is not a metric of this rollout, want one of %s", name, strings.Join(names, ", "))
	}
	return metrics[i], nil
}
