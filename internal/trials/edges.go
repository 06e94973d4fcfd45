package trials

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// runZeroBaseline simulates days at 10 rps in which stable has no errors at all, and the canary a rate of its own. The floor of 0.001, which is the
// default of a rollout file, is the canary's allowance there.
func runZeroBaseline(o Options, rate float64) []found {
	w := errorsOnly(10)
	w.Diurnal = 0
	w.Metrics[0].Base = rate
	w.Incidents = []world.Incident{{Arm: world.Stable, Metric: "error_rate", Factor: 0, To: week}}
	cfg := config(limits()[:1], analysis.AdvanceProof, int(day/step))
	cfg.Floor = floor
	return o.try(fmt.Sprintf("zero baseline %g", rate), o.Runs, func(*rand.Rand) trial {
		return trial{world: w, config: cfg, stages: []stage{{small, day}}}
	})
}

const floor = 0.001

func tablesOfZeroBaseline(o Options) []Table {
	t := Table{
		Title: "Stable has no errors at all (floor 0.001, 10 rps, 5 %, a day)",
		Head:  []string{"canary's error rate", "rolled back", "median", "called within the limit", "median"},
	}
	for _, rate := range []float64{0, 0.0005, 0.001, 0.01, 0.05, 1} {
		all := runZeroBaseline(o, rate)
		back := rolledBack(all)
		met := make([]time.Duration, len(all))
		for i, f := range all {
			met[i] = f.metAt("error_rate")
		}
		t.Rows = append(t.Rows, []string{
			number(100*rate) + " %", share(within(back, day), len(back)), span(quantileOf(back, 0.5)),
			share(within(met, day), len(met)), span(quantileOf(met, 0.5)),
		})
	}
	return []Table{t}
}

// oddity is a circumstance in which nothing must be rolled back, though little can be known.
type oddity struct {
	name string
	of   trial
}

func oddities() []oddity {
	identical, both, worse := errorsOnly(10), at(10), errorsOnly(10)
	worse.Regressions = []world.Regression{{Metric: "error_rate", Factor: 50}}
	silent := at(10)
	return []oddity{
		{"identical, half of the polls lost", trial{world: both, stages: aWeek(), loss: 0.5}},
		{"identical, nine of ten polls lost", trial{world: identical, stages: aWeek(), loss: 0.9}},
		{"no canary traffic", trial{world: silent, stages: []stage{{0, day}}}},
		{"50 times the errors, but nothing of stable to compare with (100 %)", trial{world: worse, stages: []stage{{10_000, day}}}},
	}
}

func runOddity(o Options, odd oddity) []found {
	return o.try(odd.name, o.Runs, func(*rand.Rand) trial {
		t := odd.of
		t.config = estimating()
		return t
	})
}

func tablesOfOddities(o Options) []Table {
	t := Table{
		Title: "Little or nothing to compare (10 rps, 5 % unless said)",
		Head:  []string{"what", "rolled back", "largest e-value seen"},
		Notes: []string{"Without anything to compare the e-value stays exactly 1; absolute limits and the rule for a silent canary are there for that."},
	}
	for _, odd := range oddities() {
		all := runOddity(o, odd)
		most := 0.0
		for _, f := range all {
			most = max(most, f.most)
		}
		t.Rows = append(t.Rows, []string{odd.name, share(within(rolledBack(all), week), len(all)), number(most)})
	}
	return []Table{t}
}

// cohort is what splitting users once and for all does: each user has a tendency to errors, and the canary's are others than stable's.
type cohort struct {
	factor float64 // the canary's error rate over stable's, at the same version
	spread float64 // the standard deviation of its logarithm, over splits of the same users
}

// hashings is over how many splits the spread is estimated.
const hashings = 40

// drawCohort draws users whose tendency is gamma with a coefficient of variation of cv and whose activity is lognormal, and splits them by 5 %.
func drawCohort(rng *rand.Rand, users int, cv float64) cohort {
	activity, errors := make([]float64, users), make([]float64, users)
	tendency := distuv.Gamma{Alpha: 1 / (cv * cv), Beta: 1 / (cv * cv), Src: rng}
	for u := range activity {
		activity[u] = math.Exp(rng.NormFloat64())
		errors[u] = activity[u] * tendency.Rand()
	}
	logs := make([]float64, hashings)
	for i := range logs {
		logs[i] = splitUsers(rng, activity, errors)
	}
	return cohort{factor: math.Exp(splitUsers(rng, activity, errors)), spread: stat.StdDev(logs, nil)}
}

// splitUsers is the logarithm of the error rate of 5 % of the users over that of the others.
func splitUsers(rng *rand.Rand, activity, errors []float64) float64 {
	var n, x [2]float64
	for u, a := range activity {
		arm := 0
		if rng.Float64() < small/10_000.0 {
			arm = 1
		}
		n[arm] += a
		x[arm] += errors[u]
	}
	return math.Log(max(x[1], 1e-9) / max(n[1], 1e-9) / (x[0] / n[0]))
}

// runCohorts simulates weeks with identical versions at 10 rps whose users are split once and for all.
func runCohorts(o Options, users int, cv float64, told bool) []found {
	return o.try(fmt.Sprintf("cohorts %d %g", users, cv), o.Runs, func(rng *rand.Rand) trial {
		c := drawCohort(rng, users, cv)
		w, cfg := errorsOnly(10), estimating()
		w.Regressions = []world.Regression{{Metric: "error_rate", Factor: c.factor}}
		if told {
			cfg.CohortSpread = map[string]float64{"error_rate": c.spread}
		}
		return trial{world: w, config: cfg, stages: aWeek()}
	})
}

func tablesOfCohorts(o Options) []Table {
	t := Table{
		Title: "Identical versions, but users who stay where they were put and differ in their errors (10 rps, 5 %, a week): false rollbacks",
		Head:  []string{"users", "coefficient of variation between users", "not told", "with the cohort spread from 40 splits of the same users"},
	}
	for _, c := range []struct {
		users int
		cv    float64
	}{{1000, 2}, {10_000, 2}, {100_000, 2}, {1000, 0.5}} {
		row := []string{number(float64(c.users)), number(c.cv)}
		for _, told := range []bool{false, true} {
			all := runCohorts(o, c.users, c.cv, told)
			row = append(row, share(within(rolledBack(all), week), len(all)))
		}
		t.Rows = append(t.Rows, row)
	}
	return []Table{t}
}
