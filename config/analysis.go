package config

import (
	"errors"
	"fmt"
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
		Advance: spec.Analysis.Advance, PollsPerWindow: polls(spec),
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
