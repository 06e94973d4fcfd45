package trials

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Experiment is a question with the tables that answer it.
type Experiment struct {
	Name string
	What string // one sentence
	Run  func(o Options) []Table
}

// Experiments are all there are, in the order of the documentation.
func Experiments() []Experiment {
	return []Experiment{
		{"identical", "false rollbacks and healthy verdicts of two identical versions, all rules", tablesOfIdentical},
		{"boundary", "false rollbacks exactly at the limits", tablesOfBoundary},
		{"tightening", "false rollbacks of whole rollouts whose limits tighten", tablesOfTightening},
		{"detection", "how soon regressions are rolled back", tablesOfDetection},
		{"ladder", "how soon rollouts go on that may", tablesOfLadder},
		{"late", "regressions that set in on the third day", tablesOfLate},
		{"ramp", "a ramp and an incident in both versions", tablesOfRamp},
		{"zero", "a baseline without errors", tablesOfZeroBaseline},
		{"bursts", "errors in bursts", tablesOfBursts},
		{"cohorts", "users who stay where they were put", tablesOfCohorts},
		{"tail", "costs with a heavy tail", tablesOfHeavyTail},
		{"buckets", "coarse and fine histograms", tablesOfBuckets},
		{"oddities", "little or nothing to compare", tablesOfOddities},
	}
}

// Choose is the experiments of the names, or all without names. An error says which names are unknown and which there are.
func Choose(names ...string) ([]Experiment, error) {
	all := Experiments()
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, e := range all {
		known = append(known, e.Name)
	}
	var errs []error
	for _, name := range names {
		if !slices.Contains(known, name) {
			errs = append(errs, fmt.Errorf("%q is not an experiment, want one of %s", name, strings.Join(known, ", ")))
		}
	}
	chosen := slices.DeleteFunc(all, func(e Experiment) bool { return !slices.Contains(names, e.Name) })
	return chosen, errors.Join(errs...)
}
