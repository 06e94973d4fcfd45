package trials

import (
	"math/rand/v2"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// engine is Aviary's own analysis as a rule.
type engine struct {
	*analysis.Engine
	found found
	gate  analysis.Verdict // after the last poll
}

// found is what the analysis found in one rollout.
type found struct {
	outcome
	blame    string                   // the check that brought the rollback
	healthy  time.Duration            // when the gate was first met, or never
	within   map[string]time.Duration // when a metric's check was first met: at advance: proof, shown to be within its limit
	mismatch time.Duration            // when the share of traffic first contradicted the weight, or never
	most     float64                  // the largest combined e-value
}

// metAt is when a metric's check was first met, or never.
func (f found) metAt(metric string) time.Duration {
	if t, ok := f.within[metric]; ok {
		return t
	}
	return never
}

func newEngine(cfg analysis.Config) *engine {
	return &engine{
		Engine: must(analysis.New(cfg)),
		found:  found{outcome: outcome{at: never}, healthy: never, mismatch: never, within: map[string]time.Duration{}},
	}
}

// Poll rolls back when the verdict is that a limit is violated.
func (e *engine) Poll(p analysis.Poll, stage int, at time.Duration) bool {
	e.BeginStage(stage, p.Weight)
	e.Observe(p)
	r := e.Peek(stage, 1)
	e.gate = r.Gate
	f := &e.found
	f.most = max(f.most, r.EValue)
	if r.Verdict == analysis.Violated {
		f.blame = r.Blame
		return true
	}
	if r.Gate == analysis.Met && f.healthy == never {
		f.healthy = at
	}
	if r.Mismatch != "" && f.mismatch == never {
		f.mismatch = at
	}
	for _, finding := range r.Findings {
		if finding.Verdict == analysis.Met && f.metAt(finding.Metric) == never {
			f.within[finding.Metric] = at
		}
	}
	return false
}

// trial is a rollout to simulate.
type trial struct {
	world  world.World
	config analysis.Config
	stages []stage
	loss   float64 // share of polls that never arrive
}

// try lets the analysis judge n rollouts, and returns what it found in each.
func (o Options) try(what string, n int, of func(rng *rand.Rand) trial) []found {
	out := make([]found, n)
	o.each(what, n, func(i int, rng *rand.Rand) {
		t := of(rng)
		if err := t.world.Validate(); err != nil {
			panic("trials: " + what + ": " + err.Error())
		}
		e := newEngine(t.config)
		result := watch(&t.world, t.stages, t.loss, rng, e)
		e.found.outcome = result[0]
		out[i] = e.found
	})
	return out
}

// aWeek is one stage of 5 % for a week.
func aWeek() []stage { return []stage{{small, week}} }

// rolledBack are the times of rollbacks, never included.
func rolledBack(all []found) []time.Duration {
	out := make([]time.Duration, len(all))
	for i, f := range all {
		out[i] = f.at
	}
	return out
}

// count is how many rollouts have a property.
func count(all []found, has func(found) bool) int {
	n := 0
	for _, f := range all {
		if has(f) {
			n++
		}
	}
	return n
}
