package trials

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// factors are how many times as bad regressions are.
var factors = []float64{1.2, 1.5, 2, 5}

// regression is what the canary does worse: a metric gets so many times as bad.
type regression struct {
	limit
	times float64
}

// regressions are those of all metrics that are tried: all that are beyond the limit, and a canary that fails every time.
func regressions() []regression {
	var out []regression
	w := at(1)
	for _, l := range limits() {
		for _, f := range factors {
			r := regression{l, f}
			if m := w.Metric(l.metric); l.isBeyond(m, r.factor(m)) {
				out = append(out, r)
			}
		}
	}
	return append(out, regression{limits()[0], 100})
}

// factor is what the metric's base is multiplied by. A rating gets worse by a quotient, of at most three: the worst is 1.
func (r regression) factor(m *world.Metric) float64 {
	if m.Kind == analysis.Mean && m.Better == analysis.Higher {
		return 1 / min(r.times, 3)
	}
	return r.times
}

// name says it in the metric's own numbers.
func (r regression) name(m *world.Metric) string {
	f := r.factor(m)
	switch {
	case m.Kind == analysis.Ratio && m.Better == analysis.Higher:
		return fmt.Sprintf("%s: failures %s → %s %%", m.Name, number(100-100*m.Base), number(100*(1-m.Base)*f))
	case m.Kind == analysis.Ratio:
		return fmt.Sprintf("%s: %s → %s %%", m.Name, number(100*m.Base), number(100*m.Base*f))
	case m.Kind == analysis.Quantile:
		return fmt.Sprintf("%s × %s", m.Name, number(f))
	}
	return fmt.Sprintf("%s: %s → %s", m.Name, number(m.Base), number(m.Base*f))
}

// detection is how soon a regression was found.
type detection struct {
	all   []found
	bound float64 // canary requests that any rule needs on average; +Inf within the limit
}

// runDetection simulates rollouts at 5 % for up to a week that are worse from the start. The other metrics are alike; all five have limits and so
// each has a fifth of alpha.
func runDetection(o Options, rps float64, r regression) detection {
	w := at(rps)
	w.Diurnal = 0
	m := w.Metric(r.metric)
	w.Regressions = []world.Regression{{Metric: r.metric, Factor: r.factor(m)}}
	ls := limits()
	return detection{
		all: o.try(fmt.Sprintf("detect %g %s %g", rps, r.metric, r.times), o.Runs, func(*rand.Rand) trial {
			return trial{world: w, config: config(ls, analysis.AdvanceEstimate, weekPolls), stages: aWeek()}
		}),
		bound: bound(w, r.limit, r.factor(m), alpha/float64(len(ls))),
	}
}

// caught is the share of rollouts that were rolled back.
func (d detection) caught() float64 {
	return float64(within(rolledBack(d.all), week)) / float64(len(d.all))
}

// requests is the mean number of canary requests until the rollback, or NaN where some were not rolled back.
func (d detection) requests() float64 {
	sum := 0.0
	for _, f := range d.all {
		if f.at == never {
			return math.NaN()
		}
		sum += f.requests
	}
	return sum / float64(len(d.all))
}

// ratio is the mean number of requests over the bound.
func (d detection) ratio() float64 { return d.requests() / d.bound }

func tablesOfDetection(o Options) []Table {
	t := Table{
		Title: "Regressions from the start, 5 % canary: how soon they are rolled back",
		Head:  []string{"regression", "rate", "by 7 d", "median", "90 %", "mean requests", "bound", "ratio"},
		Notes: []string{
			"Requests are the canary's. The bound is ln(M/alpha)/I with M = 5 metrics: no rule with the same risk that always detects needs fewer on average. The mean and the ratio are given where all rollouts were rolled back.",
			"A poll of 15 s brings 0.75, 7.5 and 75 canary requests at 1, 10 and 100 rps: where the bound is a few polls or less, the ratio says how long a poll is.",
		},
	}
	for _, r := range regressions() {
		w := at(1)
		for _, rps := range rates {
			d := runDetection(o, rps, r)
			times := rolledBack(d.all)
			row := []string{r.name(w.Metric(r.metric)), rate(rps), number(d.caught()), span(quantileOf(times, 0.5)), span(quantileOf(times, 0.9))}
			row = append(row, number(d.requests()), number(d.bound), number(d.ratio()))
			t.Rows = append(t.Rows, row)
		}
	}
	return []Table{t}
}

// onset is when late regressions set in.
const onset = 3 * day

// runLate simulates rollouts at 10 rps whose errors rise on the third day. Without late bets, all wealth bets from the start.
func runLate(o Options, times float64, lateBets bool) []time.Duration {
	w := only(at(10), "error_rate")
	w.Regressions = []world.Regression{{Metric: "error_rate", Factor: times, From: onset}}
	polls := weekPolls
	if !lateBets {
		polls = math.MaxInt32 // too many for a bet to begin
	}
	all := o.try(fmt.Sprintf("late %g", times), o.Runs, func(*rand.Rand) trial {
		return trial{world: w, config: config(limits(), analysis.AdvanceEstimate, polls), stages: aWeek()}
	})
	out := rolledBack(all)
	for i := range out {
		if out[i] != never {
			out[i] -= onset
		}
	}
	return out
}

func tablesOfLate(o Options) []Table {
	t := Table{
		Title: "Errors that rise after three days (10 rps, 5 %): delay until the rollback",
		Head:  []string{"errors", "by day 7", "median", "90 %", "median if no bet began late"},
	}
	for _, times := range factors[1:] {
		with, without := runLate(o, times, true), runLate(o, times, false)
		t.Rows = append(t.Rows, []string{
			"× " + number(times), share(within(with, week), len(with)), span(quantileOf(with, 0.5)), span(quantileOf(with, 0.9)), span(quantileOf(without, 0.5)),
		})
	}
	return []Table{t}
}
