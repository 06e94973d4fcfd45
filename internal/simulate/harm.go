package simulate

import (
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// harmStep is how finely the rollout is gone through again for what users had of it.
const harmStep = time.Hour

// harm counts, metric by metric, the bad outcomes on the canary beyond those that its requests would have had on stable at the same time.
func (s *simulation) harm(end time.Time) []Harm {
	excess := map[string]float64{}
	for from := s.o.Start; from.Before(end); from = from.Add(harmStep) {
		to := from.Add(harmStep)
		if end.Before(to) {
			to = end
		}
		for _, sp := range s.plane.spells(from, to) { // one weight at a time: totals over several can't be compared
			if sp.weight == 0 { // copies, whose answers nobody sees
				continue
			}
			for name, sample := range s.seen.happened(sp.from, sp.to).Samples {
				if c, st := sample.Canary, sample.Stable; c.N > 0 && st.N > 0 {
					excess[name] += c.X - c.N*st.X/st.N
				}
			}
		}
	}
	var out []Harm
	for _, m := range s.o.World.Metrics {
		if m.Kind != analysis.Ratio && m.Kind != analysis.Count {
			continue
		}
		n := excess[m.Name]
		if m.Better == analysis.Higher {
			n = -n
		}
		out = append(out, Harm{Metric: m.Name, Excess: n})
	}
	return out
}
