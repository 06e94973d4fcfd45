package config

import (
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// checkChecks reports what is wrong with everything that is asked of the metrics.
func checkChecks(spec rollout.Spec, r report) {
	known := metricsOf(spec)
	for _, c := range criteria(spec.RollbackCriteria, rollout.RollbackCriteria.Checks) {
		c.judge(known, r.under("rollback_criteria"))
	}
	for _, c := range criteria(spec.PromotionCriteria, rollout.PromotionCriteria.Checks) {
		c.judge(known, r.under("promotion_criteria"))
	}
	for i, stage := range spec.Stages {
		for j, text := range stage.Checks[:min(len(stage.Checks), maxChecks)] {
			checkCheck(text, known, fmt.Sprintf("canary_stages[%d].checks[%d]", i, j), r)
		}
	}
	if len(spec.FreezeWhen) > maxFreezes {
		r("freeze_when", "%d conditions, want at most %d", len(spec.FreezeWhen), maxFreezes)
	}
	for i, text := range spec.FreezeWhen[:min(len(spec.FreezeWhen), maxFreezes)] {
		c, err := analysis.ParseCondition(text)
		if err == nil && !unusable(known, c.Metric) {
			err = c.Validate(known)
		}
		if err != nil {
			r(fmt.Sprintf("freeze_when[%d]", i), "%v", err)
		}
	}
}

func checkCheck(text string, known []analysis.Metric, path string, r report) {
	c, err := analysis.ParseCheck(text)
	if err == nil && !unusable(known, c.Metric) {
		err = c.Validate(known)
	}
	if err != nil {
		r(path, "%v", err)
	}
}

// metricsOf are the metrics that a rollout may ask about: the provider's presets, and its definitions added to or instead of them.
func metricsOf(spec rollout.Spec) []analysis.Metric {
	metrics := analysis.Presets()
	if !hasPresets(spec.Metrics.Provider) {
		metrics = slices.DeleteFunc(metrics, func(m analysis.Metric) bool { return m.Name != analysis.TotalRequests })
	}
	for _, name := range slices.Sorted(maps.Keys(spec.Metrics.Definitions)) {
		d := spec.Metrics.Definitions[name]
		m := analysis.Metric{Name: name, Kind: analysis.Kind(d.Kind), Better: analysis.Better(d.Better), Quantile: d.Quantile}
		if i := slices.IndexFunc(metrics, func(p analysis.Metric) bool { return p.Name == name }); i >= 0 {
			metrics[i] = m
			continue
		}
		metrics = append(metrics, m)
	}
	return metrics
}

// hasPresets reports whether a provider knows the preset metrics by itself. One that asks an API or a database of somebody's own doesn't.
func hasPresets(provider string) bool { return provider != ProviderHTTP && provider != ProviderSQL }

// dropUnmeasured takes the default criteria back that ask about metrics that the provider has no preset for and the file does not define. What the file itself
// asks for stays, and is refused.
func (d *decoder) dropUnmeasured(spec *rollout.Spec) {
	if hasPresets(spec.Metrics.Provider) {
		return
	}
	known := metricsOf(*spec)
	v := reflect.ValueOf(&spec.RollbackCriteria).Elem()
	for _, c := range criteria(spec.RollbackCriteria, rollout.RollbackCriteria.Checks) {
		check, err := analysis.ParseCheck(c.check)
		measured := slices.ContainsFunc(known, func(m analysis.Metric) bool { return m.Name == check.Metric })
		if err != nil || measured || d.has("rollback_criteria."+c.key) {
			continue
		}
		for i := range v.NumField() {
			if key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ","); key == c.key {
				v.Field(i).SetZero()
			}
		}
	}
}

// unusable reports whether a metric's definition is so wrong, and told of elsewhere, that a check on it can't be judged.
func unusable(known []analysis.Metric, name string) bool {
	return slices.ContainsFunc(known, func(m analysis.Metric) bool {
		_, preset := analysis.Preset(name)
		return m.Name == name && (!slices.Contains(kinds, string(m.Kind)) || m.Better == "" && !preset)
	})
}

// criterion is one limit of a struct of criteria.
type criterion struct {
	key   string
	limit float64
	check string // as a check
}

// criteria takes a struct of limits apart. A limit's check is what the struct says with this limit alone.
func criteria[T any](all T, checks func(T) []string) []criterion {
	var out []criterion
	v := reflect.ValueOf(all)
	for i := range v.NumField() {
		limit, ok := v.Field(i).Interface().(*float64)
		if !ok || limit == nil {
			continue
		}
		var alone T
		reflect.ValueOf(&alone).Elem().Field(i).Set(v.Field(i))
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		for _, check := range checks(alone) {
			out = append(out, criterion{key: key, limit: *limit, check: check})
		}
	}
	return out
}

// maxLimit bounds a criterion.
const maxLimit = 1e9

// judge reports what is wrong with the criterion.
func (c criterion) judge(known []analysis.Metric, r report) {
	if math.IsNaN(c.limit) || c.limit < 0 || c.limit > maxLimit {
		r(c.key, "%v, want a number from 0 to %.0f", c.limit, maxLimit)
		return
	}
	checkCheck(c.check, known, c.key, r)
}
