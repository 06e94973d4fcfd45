package plan

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// seconds of a poll in simulations.
const poll = 10

// trial is one check on one metric of the simulated agent, in one stage, perhaps after an hour as stable does.
type trial struct {
	check   string
	metric  string
	factor  float64 // of a canary that is worse; 1: like stable
	weight  int
	rps     float64
	advance string
	before  time.Duration // of a first stage at half of the weight, in which the canary is like stable
	lasts   time.Duration
	phi     float64
}

// agent is the world and the plan of a trial.
func (tt trial) agent(t *testing.T) (world.World, Rollout, Traffic) {
	t.Helper()
	w := world.Default()
	w.RPS, w.Diurnal = tt.rps, 0
	m := *w.Metric(tt.metric)
	m.Share, m.Burst, m.Bounds = 0, tt.phi, world.FineBounds()
	w.Metrics = []world.Metric{m}
	factor := tt.factor
	base := Base{Value: m.Base, Spread: m.Spread, Width: 0.09}
	switch {
	case m.Kind == analysis.Quantile:
		base.Value = m.Base * math.Exp(m.Spread*1.6449)
	case len(m.Ratings) > 0:
		base.Spread, factor = 0.284, 1/factor
	}
	if tt.factor != 1 {
		w.Regressions = []world.Regression{{Metric: tt.metric, Factor: factor, From: tt.before}}
	}
	c, err := analysis.ParseCheck(tt.check)
	if err != nil {
		t.Fatal(err)
	}
	r := Rollout{Interval: poll * time.Second, Settle: new(time.Duration(0)), Config: analysis.Config{
		Method: analysis.Sequential, Alpha: 0.01, Beta: 0.05, Advance: tt.advance, Metrics: []analysis.Metric{m.Metric}, Stages: 1,
		Checks: []analysis.RoleCheck{{Check: c, Role: analysis.RoleGuard, Stage: analysis.EveryStage}}, PollsPerWindow: 10_000,
	}}
	if tt.phi > 1 { // geometric bursts
		r.Config.Overdispersion = map[string]float64{tt.metric: 2*tt.phi - 1}
	}
	if tt.before > 0 {
		r.Stages = append(r.Stages, Stage{Name: "before", Weight: tt.weight / 2, Duration: tt.before})
	}
	r.Stages = append(r.Stages, Stage{Name: "stage", Weight: tt.weight, Duration: tt.lasts, MaxHold: 1e6 * time.Hour})
	return w, r, Traffic{RPS: tt.rps, Metrics: map[string]Base{tt.metric: base}}
}

// play is when the engine says what is waited for, in seconds of the last stage, +Inf if not within as many polls.
func (tt trial) play(t *testing.T, seed uint64, polls int, until func(analysis.Report) bool) float64 {
	t.Helper()
	w, r, _ := tt.agent(t)
	e, err := analysis.New(r.Config)
	if err != nil {
		t.Fatal(err)
	}
	stream := w.Stream(rand.New(rand.NewPCG(11, seed)))
	at := time.Duration(0)
	for k := range polls {
		weight := tt.weight
		if at < tt.before {
			weight /= 2
		}
		e.BeginStage(len(r.Stages)-1, weight)
		e.Observe(stream.Poll(int64(k), at, at+poll*time.Second, weight))
		at += poll * time.Second
		if at > tt.before && until(e.Peek(len(r.Stages)-1, 0)) {
			return (at - tt.before).Seconds()
		}
	}
	return math.Inf(1)
}

const plays = 150

// times are when the engine said so in many plays, in order.
func (tt trial) times(t *testing.T, polls int, until func(analysis.Report) bool) []float64 {
	t.Helper()
	all := make([]float64, plays)
	for i := range all {
		all[i] = tt.play(t, uint64(i), polls, until)
	}
	slices.Sort(all)
	return all
}

func violated(r analysis.Report) bool { return r.Verdict == analysis.Violated }

// What is foretold of a regression is what the engine does: the median within a factor, the chance within the stage about as often.
func TestForetellsDetection(t *testing.T) {
	t.Parallel()
	const estimate = analysis.AdvanceEstimate
	for _, tt := range []trial{
		{check: "error_rate_increase < 0.1", metric: "error_rate", factor: 1.5, weight: 500, rps: 100, lasts: 30 * time.Minute},
		{check: "error_rate_increase < 0.1", metric: "error_rate", factor: 1.5, weight: 5000, rps: 20, lasts: 30 * time.Minute},
		{check: "error_rate_increase < 0.1", metric: "error_rate", factor: 2, weight: 500, rps: 30, lasts: 20 * time.Minute},
		{check: "error_rate_increase < 0.1", metric: "error_rate", factor: 5, weight: 500, rps: 3, lasts: 20 * time.Minute},
		{check: "error_rate < 0.02", metric: "error_rate", factor: 5, weight: 500, rps: 5, lasts: 20 * time.Minute},
		{check: "error_rate_increase < 0.1", metric: "error_rate", factor: 2, weight: 500, rps: 100, phi: 3, lasts: 30 * time.Minute},
		{check: "task_completion_drop < 0.02", metric: "task_completion_rate", factor: 1.5, weight: 500, rps: 20, lasts: 20 * time.Minute},
		{check: "task_completion_drop < 0.02", metric: "task_completion_rate", factor: 2, weight: 2500, rps: 2, lasts: 20 * time.Minute},
		{check: "p95_latency_increase < 0.3", metric: "p95_latency", factor: 1.5, weight: 500, rps: 20, lasts: 20 * time.Minute},
		{check: "p95_latency_increase < 0.3", metric: "p95_latency", factor: 2, weight: 500, rps: 5, lasts: 10 * time.Minute},
		{check: "cost_per_task_increase < 0.1", metric: "cost_per_task", factor: 1.2, weight: 500, rps: 50, lasts: 20 * time.Minute},
		{check: "cost_per_task_increase < 0.1", metric: "cost_per_task", factor: 1.5, weight: 500, rps: 5, lasts: 20 * time.Minute},
		{check: "user_satisfaction_drop < 0.05", metric: "user_satisfaction", factor: 1.2, weight: 500, rps: 5, lasts: 10 * time.Minute},
		// What sets in after the canary was like stable for hours has lost wealth to win back.
		{check: "error_rate_increase < 0.1", metric: "error_rate", factor: 2, weight: 1000, rps: 50, before: 4 * time.Hour, lasts: 20 * time.Minute},
		{check: "p95_latency_increase < 0.3", metric: "p95_latency", factor: 1.5, weight: 1000, rps: 50, before: 2 * time.Hour, lasts: 10 * time.Minute},
	} {
		tt.advance = estimate
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel()
			_, r, traffic := tt.agent(t)
			p, err := For(r, traffic)
			if err != nil {
				t.Fatal(err)
			}
			told := Speed{}
			for _, s := range p.Stages[len(p.Stages)-1].Checks[0].Speeds {
				if s.Factor == tt.factor {
					told = s
				}
			}
			if told.Median == nil {
				t.Fatalf("nothing is foretold: %+v", told)
			}
			all := tt.times(t, int((tt.before.Seconds()+20**told.Median)/poll)+10, violated)
			within := 0
			for _, at := range all {
				if at <= tt.lasts.Seconds() {
					within++
				}
			}
			ratio, chance := *told.Median/all[plays/2], float64(within)/plays
			t.Logf("%g times: %.0f s foretold, %.0f s seen (%.2f); chance %.2f foretold, %.2f seen", tt.factor, *told.Median, all[plays/2], ratio, told.Chance, chance)
			if !(ratio > 0.6 && ratio < 1.6) {
				t.Errorf("%.0f s foretold and %.0f s seen, want a ratio from 0.6 to 1.6", *told.Median, all[plays/2])
			}
			if math.Abs(told.Chance-chance) > 0.2 {
				t.Errorf("a chance of %.2f foretold and %.2f seen, want a difference of at most 0.2", told.Chance, chance)
			}
		})
	}
}

// So it is with what a canary like stable has to show, and with what is ruled out by then.
func TestForetellsProof(t *testing.T) {
	t.Parallel()
	for _, tt := range []trial{
		{check: "error_rate_increase < 0.3", metric: "error_rate", weight: 500, rps: 200},
		{check: "error_rate_increase < 1", metric: "error_rate", weight: 5000, rps: 5},
		{check: "error_rate < 0.02", metric: "error_rate", weight: 500, rps: 30},
		{check: "task_completion_drop < 0.05", metric: "task_completion_rate", weight: 500, rps: 10},
		{check: "p95_latency_increase < 0.3", metric: "p95_latency", weight: 500, rps: 20},
		{check: "cost_per_task_increase < 0.1", metric: "cost_per_task", weight: 500, rps: 50},
		{check: "user_satisfaction_drop < 0.05", metric: "user_satisfaction", weight: 500, rps: 10},
	} {
		tt.advance, tt.factor = analysis.AdvanceProof, 1
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel()
			_, r, traffic := tt.agent(t)
			p, err := For(r, traffic)
			if err != nil {
				t.Fatal(err)
			}
			stage := p.Stages[0]
			all := tt.times(t, int(20*stage.Takes/poll), func(r analysis.Report) bool { return r.Verdict == analysis.Met })
			mean := 0.0
			for _, at := range all {
				mean += at / plays
			}
			t.Logf("%.0f s foretold, %.0f s seen (%.2f)", stage.Takes, mean, stage.Takes/mean)
			if ratio := stage.Takes / mean; !(ratio > 0.7 && ratio < 1.4) {
				t.Errorf("%.0f s foretold and %.0f s seen, want a ratio from 0.7 to 1.4", stage.Takes, mean)
			}
			c := r.Config.Checks[0].Check
			if stage.Because != c.Text {
				t.Errorf("it takes so long because of %s, want %s", stage.Because, c.Text)
			}
			// The stage lasts until this very limit is shown.
			if out := stage.Checks[0].RulesOut; out == nil || math.Abs(*out/c.Limit-1) > 0.01 {
				t.Errorf("it rules out %v, want %g", out, c.Limit)
			}
		})
	}
}
