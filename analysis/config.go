package analysis

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// The methods.
const (
	Sequential = "sequential" // evidence that is valid at every look
	Threshold  = "threshold"  // the raw rule
)

// What a stage needs to be passed.
const (
	AdvanceEstimate = "estimate" // not violated, and the estimates within the limits
	AdvanceProof    = "proof"    // shown to be within the limits
	AdvanceLadder   = "ladder"   // a regression of 2× ruled out after the first stage, 1.3× after the middle ones, the limits after the last
)

// EveryStage is the Stage of a check that is not of one stage.
const EveryStage = -1

// RoleCheck is a check with when it is asked.
type RoleCheck struct {
	Check Check
	Role  Role
	Stage int // from 0, or EveryStage
}

// Config is everything that is asked of the metrics over a whole rollout. It must be the same for all of it: the tests that share
// alpha are fixed at the start.
type Config struct {
	Method         string      // Sequential or Threshold
	Alpha          float64     // in (0,1): the chance that a canary as good as its limits is ever rolled back
	Beta           float64     // in (0,1): the chance that proof is claimed wrongly
	Floor          float64     // in [0,1): absolute slack where the baseline is near zero
	Advance        string      // AdvanceEstimate or AdvanceProof
	Metrics        []Metric    // at least those that the checks name
	Checks         []RoleCheck // of the whole rollout
	FreezeWhen     []Condition // any of them freezes
	PollsPerWindow int         // polls that the rollout is expected to take, 0 for a thousand
	Stages         int         // in which both versions have traffic, for AdvanceLadder; 0 for one

	// Overdispersion is the variance of a metric's counts over that of independent requests, φ ≥ 1, by metric. 1 where it is absent.
	Overdispersion map[string]float64
	// CohortSpread is the standard deviation of the logarithm of a metric's ratio between two cohorts of users on the same version, by
	// metric. 0 where it is absent.
	CohortSpread map[string]float64
}

// Validate says everything that is wrong with a Config, and what is allowed, as joined errors.
func (c Config) Validate() error {
	errs := c.validateSettings()
	fail := func(err error) { errs = append(errs, err) }
	if err := validateMetrics(c.Metrics); err != nil {
		return errors.Join(append(errs, err)...)
	}
	for _, rc := range c.Checks {
		if err := c.validateCheck(rc); err != nil {
			fail(err)
		}
	}
	for _, f := range c.FreezeWhen {
		if err := f.Validate(c.Metrics); err != nil {
			fail(err)
		}
	}
	return errors.Join(errs...)
}

func (c Config) validateSettings() (errs []error) {
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Method != Sequential && c.Method != Threshold {
		fail("method %q: want %s or %s", c.Method, Sequential, Threshold)
	}
	if !slices.Contains([]string{AdvanceEstimate, AdvanceProof, AdvanceLadder}, c.Advance) {
		fail("advance %q: want %s, %s or %s", c.Advance, AdvanceEstimate, AdvanceProof, AdvanceLadder)
	}
	if !(c.Alpha > 0 && c.Alpha < 1) { // true for NaN
		fail("alpha %g: want a chance above 0 and below 1", c.Alpha)
	}
	if !(c.Beta > 0 && c.Beta < 1) {
		fail("beta %g: want a chance above 0 and below 1", c.Beta)
	}
	if !(c.Floor >= 0 && c.Floor < 1) {
		fail("floor %g: want a fraction from 0 to below 1", c.Floor)
	}
	if c.PollsPerWindow < 0 {
		fail("polls per window %d: want 0 or more", c.PollsPerWindow)
	}
	if c.Stages < 0 {
		fail("stages %d: want 0 or more", c.Stages)
	}
	if c.provesSomething() && c.Method == Threshold {
		fail("advance %s: want method %s, a raw rule proves nothing", c.Advance, Sequential)
	}
	errs = append(errs, c.validateSpread("overdispersion", c.Overdispersion, 1, mostPhi)...)
	return append(errs, c.validateSpread("cohort spread", c.CohortSpread, 0, mostSpread)...)
}

// What natural variance may be said to be. More is a mistake, or makes a metric useless.
const (
	mostPhi    = 1000
	mostSpread = 1
)

// provesSomething reports whether the stages ask for more than an estimate.
func (c Config) provesSomething() bool {
	return c.Advance == AdvanceProof || c.Advance == AdvanceLadder
}

// validateSpread judges natural variances by metric.
func (c Config) validateSpread(what string, of map[string]float64, least, most float64) (errs []error) {
	for _, name := range slices.Sorted(maps.Keys(of)) {
		if _, err := find(c.Metrics, name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", what, err))
		}
		if x := of[name]; !(x >= least && x <= most) { // true for NaN
			errs = append(errs, fmt.Errorf("%s of %s is %g: want a number from %g to %g", what, name, x, least, most))
		}
	}
	return errs
}

func (c Config) validateCheck(rc RoleCheck) error {
	if !slices.Contains([]Role{RoleGuard, RoleStage, RolePromotion}, rc.Role) {
		return fmt.Errorf("check %q: role %q: want %s, %s or %s", rc.Check.Text, rc.Role, RoleGuard, RoleStage, RolePromotion)
	}
	if rc.Stage < EveryStage {
		return fmt.Errorf("check %q: stage %d: want 0 or more, or %d for every stage", rc.Check.Text, rc.Stage, EveryStage)
	}
	if !slices.Contains(ops, rc.Check.Op) || !finite(rc.Check.Limit) {
		return fmt.Errorf("check %q was not read by ParseCheck, want %s", rc.Check.Text, checkForm)
	}
	if err := rc.Check.Validate(c.Metrics); err != nil {
		return err
	}
	m, _ := find(c.Metrics, rc.Check.Metric)
	if c.provesSomething() && m.Kind == Value && rc.Role != RoleGuard {
		return fmt.Errorf("check %q: advance %s can't be had for a plain value, want advance %s or another metric", rc.Check.Text, c.Advance, AdvanceEstimate)
	}
	return nil
}

// validateMetrics wants names that a check can tell apart, and known kinds and directions.
func validateMetrics(metrics []Metric) error {
	kinds := []Kind{Ratio, Count, Mean, Quantile, Value}
	seen := map[string]bool{}
	for _, m := range metrics {
		if err := checkName(m.Name, "error_rate"); err != nil {
			return err
		}
		base, change := cutChange(m.Name)
		switch {
		case change != "":
			return fmt.Errorf("metric %q: a check would read it as the %s of %q, want another name", m.Name, change, base)
		case seen[m.Name]:
			return fmt.Errorf("metric %q is there twice", m.Name)
		case !slices.Contains(kinds, m.Kind):
			return fmt.Errorf("metric %q: kind %q: want ratio, count, mean, quantile or value", m.Name, m.Kind)
		case m.Better != "" && m.Better != Lower && m.Better != Higher:
			return fmt.Errorf("metric %q: better %q: want lower or higher", m.Name, m.Better)
		case m.Kind == Quantile && !(m.Quantile > 0 && m.Quantile < 1):
			return fmt.Errorf("metric %q: quantile %g: want a fraction above 0 and below 1", m.Name, m.Quantile)
		}
		seen[m.Name] = true
	}
	return nil
}
