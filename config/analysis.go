package config

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// AnalysisConfig is what a rollout asks of the statistics: the metrics it needs, its criteria and checks compiled. Errors name the
// first path at fault; there are none in a Spec that passed CheckSpec.
func AnalysisConfig(spec rollout.Spec) (analysis.Config, error) {
	cfg := analysis.Config{
		Method: spec.Analysis.Method, Alpha: spec.Analysis.Alpha, Beta: spec.Analysis.Beta, Floor: spec.Analysis.Floor,
		Advance: spec.Analysis.Advance, PollsPerWindow: polls(spec), Stages: sharedStages(spec),
		Overdispersion: spec.Analysis.Overdispersion, CohortSpread: spec.Analysis.CohortSpread,
	}
	var errs []error
	add := func(path, text string, role analysis.Role, stage int) {
		c, err := analysis.ParseCheck(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", path, err))
			return
		}
		cfg.Checks = append(cfg.Checks, analysis.RoleCheck{Check: c, Role: role, Stage: stage})
	}
	for _, text := range spec.RollbackCriteria.Checks() {
		add("rollback_criteria", text, analysis.RoleGuard, analysis.EveryStage)
	}
	for i, stage := range spec.Stages {
		for j, text := range stage.Checks {
			add(fmt.Sprintf("canary_stages[%d].checks[%d]", i, j), text, analysis.RoleStage, i)
		}
	}
	for _, text := range spec.PromotionCriteria.Checks() {
		add("promotion_criteria", text, analysis.RolePromotion, analysis.EveryStage)
	}
	for i, text := range spec.FreezeWhen {
		c, err := analysis.ParseCondition(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("freeze_when[%d]: %w", i, err))
			continue
		}
		cfg.FreezeWhen = append(cfg.FreezeWhen, c)
	}
	if len(errs) > 0 {
		return analysis.Config{}, errs[0]
	}
	cfg.Metrics = usedBy(cfg, metricsOf(spec))
	return cfg, nil
}

// sharedStages is how many stages there are in which both versions have traffic.
func sharedStages(spec rollout.Spec) int {
	n := 0
	for _, stage := range spec.Stages {
		if stage.Weight < rollout.FullWeight {
			n++
		}
	}
	return n
}

// polls is how many polls the stages' durations hold, at least 1.
func polls(spec rollout.Spec) int {
	if spec.Metrics.Interval <= 0 {
		return 1
	}
	var total time.Duration
	for _, stage := range spec.Stages {
		total += stage.Duration.Std()
	}
	return max(1, int(total/spec.Metrics.Interval.Std()))
}

// Bounds on what is said of natural variance. More is a mistake, or makes a metric useless.
const (
	maxOverdispersion = 1000
	maxCohortSpread   = 1
)

// maxSettle bounds the time after a weight change that is not compared.
const maxSettle = 24 * time.Hour

// checkVariance reports settings by metric that are out of range, or of metrics that nothing tests.
func checkVariance(spec rollout.Spec, r report) {
	for _, setting := range []struct {
		key         string
		of          map[string]float64
		least, most float64
	}{
		{"overdispersion", spec.Analysis.Overdispersion, 1, maxOverdispersion},
		{"cohort_spread", spec.Analysis.CohortSpread, 0, maxCohortSpread},
	} {
		if len(setting.of) == 0 {
			continue
		}
		known := tested(spec)
		for _, name := range slices.Sorted(maps.Keys(setting.of)) {
			path := child(setting.key, name)
			if x := setting.of[name]; !(x >= setting.least && x <= setting.most) { // true for NaN
				r(path, "%v, want a number from %v to %v", x, setting.least, setting.most)
			}
			switch {
			case slices.Contains(known, name):
			case len(known) == 0:
				r(path, "%s is tested by no check of this rollout, want nothing here", quote(name))
			default:
				r(path, "%s is tested by no check of this rollout, want one of %s", quote(name), oneOf(known...))
			}
		}
	}
}

// tested are the metrics that a check with a sequential test asks about, in the order of the presets. What can't be read is left out: it is told
// of elsewhere.
func tested(spec rollout.Spec) []string {
	relative, own := map[string]bool{}, map[string]bool{}
	texts := slices.Concat(spec.RollbackCriteria.Checks(), spec.PromotionCriteria.Checks())
	for _, stage := range spec.Stages {
		texts = append(texts, stage.Checks[:min(len(stage.Checks), maxChecks)]...)
	}
	for _, text := range texts {
		c, err := analysis.ParseCheck(text)
		if err != nil {
			continue
		}
		relative[c.Metric] = relative[c.Metric] || c.Change != ""
		own[c.Metric] = own[c.Metric] || c.Change == ""
	}
	var out []string
	for _, m := range metricsOf(spec) {
		ruled := m.Kind == analysis.Count // by itself: a rule on counted events, or a least number
		if (relative[m.Name] || own[m.Name] && !ruled) && m.Name != analysis.TotalRequests && m.Kind != analysis.Value {
			out = append(out, m.Name)
		}
	}
	return out
}

// checkSettle wants the time that is not compared to leave something of every stage to compare.
func checkSettle(spec rollout.Spec, r report) {
	settle := spec.Analysis.Settle
	if settle == nil {
		return
	}
	shortest, of := rollout.Duration(maxSettle)+1, ""
	for _, stage := range spec.Stages {
		if stage.Duration > 0 && stage.Duration < shortest {
			shortest, of = stage.Duration, stage.Name
		}
	}
	switch {
	case *settle < 0 || settle.Std() > maxSettle:
		r("settle", "%s, want 0s to %s, or leave it out to settle by the durations of requests", *settle, rollout.Duration(maxSettle))
	case *settle >= shortest:
		r("settle", "%s, but the stage %s lasts only %s: want less than the shortest stage", *settle, quote(of), shortest)
	}
}

// usedBy are the metrics that something is asked of. The source is asked for no others: it may not have them.
func usedBy(cfg analysis.Config, known []analysis.Metric) []analysis.Metric {
	used := map[string]bool{}
	for _, c := range cfg.Checks {
		used[c.Check.Metric] = true
	}
	for _, c := range cfg.FreezeWhen {
		used[c.Metric] = true
	}
	return slices.DeleteFunc(known, func(m analysis.Metric) bool { return !used[m.Name] })
}

// checkTogether reports what the statistics refuse although every part is right by itself, such as proof of what can't be shown.
func checkTogether(spec rollout.Spec, r report) {
	cfg, err := AnalysisConfig(spec)
	if err == nil {
		err = cfg.Validate()
	}
	if err == nil {
		return
	}
	all := []error{err}
	if joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		all = joined.Unwrap()
	}
	for _, e := range all {
		r("analysis", "%s", strings.ReplaceAll(e.Error(), "\n", "; "))
	}
}
