package analysis

import (
	"fmt"
	"strings"
)

// Condition is when both versions are taken to be bad at once, such as stable.error_rate > 0.20.
type Condition struct {
	Text   string // as it was written, without space around it
	Canary bool   // on the canary's own value, else on stable's
	Metric string
	Op     Op
	Limit  float64
}

const conditionForm = "(stable|canary).METRIC (<|<=|>|>=) NUMBER"

// ParseCondition reads a condition of the form (stable|canary).METRIC (<|<=|>|>=) NUMBER. An error says what is wrong and what is
// allowed. Whether the metric exists is for Validate.
func ParseCondition(text string) (Condition, error) {
	trimmed := strings.TrimSpace(text)
	arm, rest, found := strings.Cut(trimmed, ".")
	if !found || (arm != "stable" && arm != "canary") {
		return Condition{}, fmt.Errorf("%q does not begin with stable. or canary., want %s", clip(trimmed), conditionForm)
	}
	name, op, limit, err := split(rest, conditionForm)
	if err != nil {
		return Condition{}, err
	}
	if op == Equal {
		return Condition{}, fmt.Errorf("%q wants a measured number to be exact, want %s", trimmed, conditionForm)
	}
	if metric, change := cutChange(name); change != "" {
		return Condition{}, fmt.Errorf("%q is relative, want a version's own value: %s.%s", trimmed, arm, metric)
	}
	return Condition{Text: trimmed, Canary: arm == "canary", Metric: fullName(name), Op: op, Limit: limit}, nil
}

// Validate says whether the condition makes sense for a metric of the rollout. An error says what is allowed.
func (c Condition) Validate(metrics []Metric) error {
	m, err := find(metrics, c.Metric)
	if err != nil {
		return err
	}
	switch {
	case m.Name == TotalRequests:
		return fmt.Errorf("%q is on traffic, which says nothing of quality, want another metric", c.Text)
	case m.Kind != Value && c.Limit < 0:
		return fmt.Errorf("%q has a negative limit, want 0 or more", c.Text)
	case m.Kind == Ratio && c.Limit > 1:
		return fmt.Errorf("%q is beyond a ratio, want a fraction from 0 to 1: 0.20 is 20 %%", c.Text)
	}
	return nil
}

// clip keeps a message readable.
func clip(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "…"
}
