package calibration

import "github.com/aviary-rollouts/aviary/analysis"

// freezeLead is how many polls an outage may last before it freezes a rollout: they are left out as well.
const freezeLead = 6

// frozen marks the polls during which the rollout would have been frozen: troubles of everybody, which no rollout would have held against
// its canary. Both versions are the one that there was.
func (c *calibration) frozen() ([]bool, error) {
	cfg := c.rollout.replayed(c.History, c.Polls)
	cfg.Checks = nil
	for _, f := range c.rollout.Config.FreezeWhen {
		if f.Validate(cfg.Metrics) == nil { // of a metric that the history has
			cfg.FreezeWhen = append(cfg.FreezeWhen, f)
		}
	}
	if len(cfg.FreezeWhen) == 0 {
		return nil, nil
	}
	cfg.Method, cfg.Advance = analysis.Threshold, analysis.AdvanceEstimate
	engine, err := analysis.New(cfg)
	if err != nil {
		return nil, err
	}
	engine.BeginStage(0, full/2)
	r := &run{player: &player{h: c.History}, buffer: map[string]analysis.Sample{}}
	everything := turn{units: make([]bool, len(c.Units)), slots: 1, of: 1}
	out := make([]bool, c.Polls)
	for poll := range out {
		p := r.cut(poll, []arm{ofStable}, everything)
		p.Number, p.Weight, p.Requests.Canary = int64(poll), full/2, p.Requests.Stable
		for name, s := range p.Samples {
			s.Canary = s.Stable
			p.Samples[name] = s
		}
		engine.Observe(p)
		if frozen, _ := engine.Frozen(); frozen {
			for lead := max(0, poll-freezeLead); lead <= poll; lead++ {
				out[lead] = true
			}
			c.out.Frozen++
		}
	}
	c.out.Frozen /= float64(c.Polls)
	return out, nil
}
