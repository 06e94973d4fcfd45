package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/analysis/calibration"
	"github.com/aviary-rollouts/aviary/analysis/plan"
	"github.com/aviary-rollouts/aviary/rollout"
)

// calibrated is what calibrate tells: what was learnt, and what it makes of the plan.
type calibrated struct {
	*calibration.Result
	Plan *plan.Plan `json:"plan,omitempty"` // at the traffic that was seen, with the settings; nil without traffic
}

// foretell plans the rollout at the traffic that was seen, with the settings that were learnt.
func foretell(spec rollout.Spec, cfg analysis.Config, r *calibration.Result) (*plan.Plan, error) {
	if r.Traffic.Mean <= 0 {
		return nil, nil
	}
	cfg.Overdispersion, cfg.CohortSpread = r.Overdispersion, r.CohortSpread
	traffic := plan.Traffic{RPS: r.Traffic.Mean, Metrics: map[string]plan.Base{}}
	for _, m := range r.Metrics {
		if m.Base == nil || m.Share <= 0 {
			continue // assumed
		}
		b := plan.Base{Value: *m.Base, Share: m.Share}
		if m.Deviation != nil {
			b.Spread = *m.Deviation
		}
		if m.Width != nil {
			b.Width = *m.Width
		}
		traffic.Metrics[m.Name] = b
	}
	p, err := plan.For(planned(spec, cfg), traffic)
	if err != nil {
		return nil, fmt.Errorf("plan %s with what was learnt: %w", spec.Agent, err)
	}
	return p, nil
}

// foretold says in lines whether the rollout can decide.
func (s Screen) foretold(p *plan.Plan) []string {
	if p == nil {
		return nil
	}
	s.Width = min(s.columns(), reportWidth)
	says := "can decide at this traffic"
	if !p.Decides {
		says = "can not decide at this traffic: " + strings.Join(p.Undecided, "; ")
	}
	text := fmt.Sprintf("With these settings the rollout %s. Its stages are planned for %s and take about %s; `starter plan` says more.",
		says, span(time.Duration(p.Planned*float64(time.Second))), span(time.Duration(p.Takes*float64(time.Second))))
	return append([]string{""}, wrap(text, s.columns())...)
}
