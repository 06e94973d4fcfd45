package analysis

import "fmt"

// mostChange is the largest limit on a change. What is larger was most likely meant as a percentage.
const mostChange = 100

// Validate says whether the check makes sense for a metric of the rollout: the metric is known, the comparison does not punish the
// canary for being better, and the limit can be met and missed. An error says what is allowed.
func (c Check) Validate(metrics []Metric) error {
	m, err := find(metrics, c.Metric)
	if err != nil {
		return err
	}
	if m.Name == TotalRequests {
		return c.validateTotal()
	}
	if c.Change != "" {
		return c.validateChange(m)
	}
	return c.validateOwn(m)
}

// validateTotal wants a least number of requests.
func (c Check) validateTotal() error {
	switch {
	case c.Change != "":
		return fmt.Errorf("%q compares traffic, which follows the weight, want total_requests >= NUMBER", c.Text)
	case c.Op != AtLeast && c.Op != Above:
		return fmt.Errorf("%q limits traffic, which says nothing of quality, want total_requests >= NUMBER", c.Text)
	case c.Limit < 0:
		return fmt.Errorf("%q has a negative limit, want 0 or more", c.Text)
	}
	return nil
}

// rises reports whether more of the named change is more of the metric.
func (c Check) rises(m Metric) bool {
	return c.Change == Increase || (c.Change == Regression && m.Better == Lower)
}

// validateChange judges a check that is relative to stable.
func (c Check) validateChange(m Metric) error {
	if c.Change == Regression && m.Better == "" {
		return fmt.Errorf("%q has no bad direction, want %s_increase or %s_decrease", c.Text, m.Name, m.Name)
	}
	rises := c.rises(m)
	worse := (rises && m.Better == Lower) || (!rises && m.Better == Higher)
	switch {
	case m.Better == "":
	case worse && !c.Op.isUpper():
		return fmt.Errorf("%q asks the canary to be worse: for %s, %s is better; want < or <=", c.Text, m.Name, m.Better)
	case !worse && c.Op.isUpper():
		return fmt.Errorf("%q fails a canary for being better: for %s, %s is better; want %s_regression %s %s", c.Text, m.Name, m.Better, m.Name, c.Op, number(c.Limit))
	}
	switch {
	case c.Limit < 0 || c.Op == Equal:
		return fmt.Errorf("%q is not a limit on a change, want one of <, <=, >, >= and 0 or more", c.Text)
	case !rises && c.Limit >= 1:
		return fmt.Errorf("%q is more than there is to lose, want a fraction below 1: 0.10 is 10 %%", c.Text)
	case c.Limit > mostChange:
		return fmt.Errorf("%q is a very large change, want a fraction: 0.10 is 10 %%, and at most %d", c.Text, mostChange)
	}
	return nil
}

// validateOwn judges a check on the canary's own value.
func (c Check) validateOwn(m Metric) error {
	if c.Op == Equal && (c.Limit != 0 || m.Better != Lower || (m.Kind != Count && m.Kind != Ratio)) {
		return fmt.Errorf("%q wants a measured number to be exact, want <= or >=; == 0 is for counts and ratios that should be 0", c.Text)
	}
	if m.Kind != Value && c.Limit < 0 {
		return fmt.Errorf("%q has a negative limit, want 0 or more", c.Text)
	}
	switch upper := c.Op.isUpper() || c.Op == Equal; {
	case m.Better == Lower && !upper:
		return fmt.Errorf("%q asks the canary to be bad: for %s, lower is better; want < or <=", c.Text, m.Name)
	case m.Better == Higher && upper:
		return fmt.Errorf("%q fails a canary for being good: for %s, higher is better; want > or >=", c.Text, m.Name)
	}
	if m.Kind != Value && c.Op == Below && c.Limit == 0 {
		return fmt.Errorf("%q can never be met, want a limit above 0, or <= 0", c.Text)
	}
	if m.Kind == Ratio {
		return c.validateShare(m)
	}
	return nil
}

// validateShare judges a limit on a share itself.
func (c Check) validateShare(m Metric) error {
	switch {
	case c.Limit > 1:
		return fmt.Errorf("%q is beyond a ratio, want a fraction from 0 to 1: 0.10 is 10 %%", c.Text)
	case c.Op == Above && c.Limit == 1:
		return fmt.Errorf("%q can never be met: %s is at most 1", c.Text, m.Name)
	}
	return nil
}

// isRule reports whether the check is a rule on counted events: no test, and no need of many.
func (c Check) isRule(m Metric) bool {
	return m.Kind == Count && c.Change == "" && m.Name != TotalRequests && (c.Op.isUpper() || c.Op == Equal)
}
