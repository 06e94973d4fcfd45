package trials

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// way is how a rollout goes from the first users to all: its stages end as soon as what they ask is met.
type way struct {
	name    string
	advance string
	weights []int // of the stages, in basis points
}

func ways() []way {
	return []way{
		{"proof, 5 % all the time", analysis.AdvanceProof, []int{500}},
		{"ladder, 5 → 25 → 50 %", analysis.AdvanceLadder, []int{500, 2500, 5000}},
		{"proof, 50 % from the start", analysis.AdvanceProof, []int{5000}},
	}
}

// climbed is how a rollout ended that goes on as soon as it may.
type climbed struct {
	found
	promoted time.Duration // when the last stage's gate was met, or never
	worse    float64       // errors that users had because of the canary
}

// climb simulates rollouts of at most a week whose errors are so many times stable's from the start.
func climb(o Options, rps float64, by way, times float64) []climbed {
	w := at(rps)
	w.Diurnal = 0
	w.Regressions = []world.Regression{{Metric: "error_rate", Factor: times}}
	cfg := config(limits(), by.advance, weekPolls)
	cfg.Stages = len(by.weights)
	out := make([]climbed, o.Runs)
	o.each(fmt.Sprintf("climb %g %s %g", rps, by.name, times), o.Runs, func(i int, rng *rand.Rand) {
		e := newEngine(cfg)
		stream := w.Stream(rng)
		c := &out[i]
		c.promoted = never
		at := never
		stage := 0
		for n := 1; n <= weekPolls && at == never && c.promoted == never; n++ {
			end := time.Duration(n) * step
			p := stream.Poll(int64(n), end-step, end, by.weights[stage])
			c.worse += p.Samples["error_rate"].Canary.X * (1 - 1/times)
			switch {
			case e.Poll(p, stage, end):
				at = end
			case e.gate != analysis.Met:
			case stage+1 < len(by.weights):
				stage++
			default:
				c.promoted = end
			}
		}
		c.found = e.found
		c.at = at
	})
	return out
}

func tablesOfLadder(o Options) []Table {
	t := Table{
		Title: "Rollouts whose stages end as soon as what they ask is met (five metrics, at most a week)",
		Head:  []string{"rate", "errors", "stages", "promoted", "median", "rolled back", "median", "additional errors of users, median"},
		Notes: []string{"The ladder rules out twice as many errors at 5 %, 1.3 times at 25 %, and what is beyond the limits at 50 %. What is × 1.5 or × 2 should never be promoted."},
	}
	o.Runs = (o.Runs + 1) / 2 // some take the whole week
	for _, rps := range rates {
		for _, times := range []float64{1, 1.5, 2} {
			for _, by := range ways() {
				all := climb(o, rps, by, times)
				var promoted, back []time.Duration
				var worse []float64
				for _, c := range all {
					promoted, back, worse = append(promoted, c.promoted), append(back, c.at), append(worse, c.worse)
				}
				slices.Sort(worse)
				t.Rows = append(t.Rows, []string{
					rate(rps), "× " + number(times), by.name, share(within(promoted, week), len(all)), span(quantileOf(promoted, 0.5)),
					share(within(back, week), len(all)), span(quantileOf(back, 0.5)), number(stat.Quantile(0.5, stat.Empirical, worse, nil)),
				})
			}
		}
	}
	return []Table{t}
}
