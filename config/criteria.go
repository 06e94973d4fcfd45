package config

import (
	"reflect"
	"strings"

	"github.com/aviary-rollouts/aviary/rollout"
)

// checkChecks reports what is wrong with everything that is asked of the metrics.
func checkChecks(spec rollout.Spec, r report) {
	checkCriteria(spec.RollbackCriteria, r.under("rollback_criteria"))
	checkCriteria(spec.PromotionCriteria, r.under("promotion_criteria"))
	if len(spec.FreezeWhen) > maxFreezes {
		r("freeze_when", "%d conditions, want at most %d", len(spec.FreezeWhen), maxFreezes)
	}
}

// checkCriteria checks every limit of a struct of limits.
func checkCriteria(criteria any, r report) {
	v := reflect.ValueOf(criteria)
	for i := range v.NumField() {
		key, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		if limit, ok := v.Field(i).Interface().(*float64); ok {
			checkCriterion(limit, key, r)
		}
	}
}
