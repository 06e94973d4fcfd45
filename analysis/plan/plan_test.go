package plan

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// asked is a rollout of guards, in stages of a weight and duration each.
func asked(t *testing.T, guards []string, stages ...Stage) Rollout {
	t.Helper()
	r := Rollout{
		Stages: stages, Interval: 10 * time.Second, Settle: new(time.Duration(0)),
		Config: analysis.Config{
			Method: analysis.Sequential, Alpha: 0.01, Beta: 0.05, Advance: analysis.AdvanceEstimate, Stages: len(stages), Metrics: analysis.Presets(),
		},
	}
	for _, text := range guards {
		r.Config.Checks = append(r.Config.Checks, guard(t, text))
	}
	return r
}

func guard(t *testing.T, text string) analysis.RoleCheck {
	t.Helper()
	c, err := analysis.ParseCheck(text)
	if err != nil {
		t.Fatal(err)
	}
	return analysis.RoleCheck{Check: c, Role: analysis.RoleGuard, Stage: analysis.EveryStage}
}

func made(t *testing.T, r Rollout, traffic Traffic) *Plan {
	t.Helper()
	p, err := For(r, traffic)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := json.Marshal(p); err != nil {
		t.Errorf("the plan can't be written down: %v", err)
	}
	return p
}

// said wants all of some words in lines.
func said(t *testing.T, lines []string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(strings.Join(lines, "\n"), w) {
			t.Errorf("nothing says %q:\n%s", w, strings.Join(lines, "\n"))
		}
	}
}

const day = 24 * time.Hour

// The published floor: 1 % errors, +10 %, 5 % weight take 67,000 canary requests to show, 37 hours at 10 requests/s, 15 days at 1.
func TestPlanOfThePublishedExample(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ rps, low, high float64 }{{10, 37, 45}, {1, 15 * 24, 18 * 24}} {
		r := asked(t, []string{"error_rate_increase < 0.1"}, Stage{Name: "one", Weight: 500, Duration: time.Hour, MaxHold: 30 * day})
		r.Config.Advance = analysis.AdvanceProof
		p := made(t, r, Traffic{RPS: tt.rps, Metrics: map[string]Base{"error_rate": {Value: 0.01}}})
		if hours := p.Takes / 3600; !(hours > tt.low && hours < tt.high) || p.Stages[0].Because != "error_rate_increase < 0.1" {
			t.Errorf("%g requests/s: %.1f hours because of %s, want %g to %g", tt.rps, hours, p.Stages[0].Because, tt.low, tt.high)
		}
	}
}

func TestWhatAStageTakes(t *testing.T) {
	t.Parallel()
	stage := Stage{Name: "one", Weight: 1000, Duration: time.Hour, MaxHold: day}
	for _, tt := range []struct {
		name    string
		change  func(*Rollout)
		want    time.Duration
		because string
		decides bool
	}{
		{"its duration", func(*Rollout) {}, time.Hour, "duration", true},
		{"its requests", func(r *Rollout) { r.Stages[0].MinRequests = 7200 }, 2 * time.Hour, "min_requests", true},
		{"a precondition", func(r *Rollout) {
			c := r.Config.Checks[0]
			c.Check, _ = analysis.ParseCheck("total_requests >= 10800")
			r.Config.Checks = append(r.Config.Checks, c)
		}, 3 * time.Hour, "total_requests >= 10800", true},
		{"too many requests", func(r *Rollout) { r.Stages[0].MinRequests = 1e9 }, 25 * time.Hour, "min_requests", false},
		{"a wait for the canary to settle", func(r *Rollout) {
			r.Stages[0].MinRequests, r.Settle = 7200, new(10*time.Minute-10*time.Second)
		}, 130 * time.Minute, "min_requests", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := asked(t, []string{"error_rate_increase < 0.5"}, stage)
			tt.change(&r)
			p := made(t, r, Traffic{RPS: 10, Metrics: map[string]Base{"error_rate": {Value: 0.05}}})
			l := p.Stages[0]
			if math.Abs(l.Takes-tt.want.Seconds()) > 1 || l.Because != tt.because || p.Decides != tt.decides {
				t.Errorf("%g s because of %s, decides %t (%v); want %s, %s, %t", l.Takes, l.Because, p.Decides, p.Undecided, tt.want, tt.because, tt.decides)
			}
		})
	}
}

// A ladder asks for little at first, and for what the stages before have not shown yet.
func TestALadderTakesLessThanProofAtOnce(t *testing.T) {
	t.Parallel()
	stages := []Stage{
		{Name: "5", Weight: 500, Duration: time.Minute, MaxHold: 90 * day},
		{Name: "25", Weight: 2500, Duration: time.Minute, MaxHold: 90 * day},
		{Name: "50", Weight: 5000, Duration: time.Minute, MaxHold: 90 * day},
	}
	traffic := Traffic{RPS: 10, Metrics: map[string]Base{"error_rate": {Value: 0.01}}}
	takes := map[string]float64{}
	for _, advance := range []string{analysis.AdvanceProof, analysis.AdvanceLadder} {
		r := asked(t, []string{"error_rate_increase < 0.1"}, stages...)
		r.Config.Advance = advance
		p := made(t, r, traffic)
		takes[advance] = p.Takes
		if last := p.Stages[2].Checks[0].RulesOut; last == nil || *last > 0.1001 {
			t.Errorf("%s ends with %v ruled out, want the limit", advance, last)
		}
		if advance == analysis.AdvanceLadder {
			if first := p.Stages[0].Checks[0].RulesOut; first == nil || math.Abs(*first-1) > 0.01 {
				t.Errorf("the first stage rules out %v, want 1", first)
			}
		}
	}
	if l, p := takes[analysis.AdvanceLadder], takes[analysis.AdvanceProof]; !(l < p/2) {
		t.Errorf("the ladder takes %s and proof in the first stage %s, want less than half", Say(l), Say(p))
	}
}

func TestWhatIsBeyondHope(t *testing.T) {
	t.Parallel()
	r := asked(t, []string{"error_rate_increase < 0.5", "task_completion_drop < 0.05"}, Stage{Name: "one", Weight: 500, Duration: day}, Stage{Name: "bake", Weight: 10_000, Duration: day})
	p := made(t, r, Traffic{RPS: 100, Metrics: map[string]Base{"error_rate": {Value: 0.01}, "task_completion_rate": {Value: 0.99}}})
	errs, tasks := p.Stages[0].Checks[0], p.Stages[0].Checks[1]
	if !errs.Speeds[0].Allowed || !errs.Speeds[1].Allowed || errs.Speeds[2].Allowed || errs.Speeds[2].Median == nil {
		t.Errorf("+50 %% allows 1.2× and 1.5× alone: %+v", errs.Speeds)
	}
	// 5 % of the 99 % may be lost: failures may be 5.95 times as many.
	for _, s := range tasks.Speeds {
		if !s.Allowed || s.Median != nil {
			t.Errorf("a drop of 5 %% allows five times 1 %% of failures: %+v", s)
		}
	}
	for _, c := range p.Stages[1].Checks {
		for _, s := range c.Speeds {
			if !s.Blind || s.Chance != 0 {
				t.Errorf("%s in a bake: %+v, want blind", c.Check, s)
			}
		}
	}
	if got := *p.Catches[1].Limit; math.Abs(got-5.95) > 0.01 {
		t.Errorf("failures may be %g times as many, want 5.95", got)
	}
	said(t, p.Warnings, "task_completion_rate: the limits allow up to 5.95× as bad as stable")

	// At next to no traffic nothing is caught.
	p = made(t, r, Traffic{RPS: 1e-4, Metrics: map[string]Base{"error_rate": {Value: 0.01}}})
	if p.Decides {
		t.Error("it decides on nine requests")
	}
	said(t, p.Undecided, "error_rate: ")
}

// Every regression is caught sooner and more surely the worse it is, and with more traffic.
func TestMoreIsCaughtSooner(t *testing.T) {
	t.Parallel()
	guards := []string{"error_rate_increase < 0.1", "task_completion_drop < 0.01", "p95_latency_increase < 0.1", "cost_per_task_increase < 0.1", "user_satisfaction_drop < 0.02", "error_rate < 0.011"}
	r := asked(t, guards, Stage{Name: "a", Weight: 100, Duration: time.Hour}, Stage{Name: "b", Weight: 2500, Duration: 4 * time.Hour})
	before := map[string]Speed{}
	for _, rps := range []float64{0.1, 1, 10, 100, 1000, 1e6} {
		p := made(t, r, Traffic{RPS: rps})
		for _, c := range p.Catches {
			last := Speed{}
			for _, s := range c.Speeds {
				if s.Chance < last.Chance-1e-3 || (last.Median != nil && (s.Median == nil || *s.Median > *last.Median+1)) {
					t.Errorf("%s at %g requests/s: %+v after %+v", c.Metric, rps, s, last)
				}
				last = s
			}
			key := c.Metric
			if !c.Relative {
				key += " own"
			}
			if b := before[key]; last.Chance < b.Chance-1e-3 || (b.Median != nil && *last.Median > *b.Median+1) {
				t.Errorf("%s at %g requests/s: %+v, with fewer %+v", c.Metric, rps, last, b)
			}
			before[key] = last
		}
	}
	if len(before) != len(guards) {
		t.Errorf("%d kinds of limits, want %d", len(before), len(guards))
	}
}

func TestRulesOnCountedEvents(t *testing.T) {
	t.Parallel()
	stages := []Stage{{Name: "a", Weight: 500, Duration: time.Hour}, {Name: "b", Weight: 5000, Duration: time.Hour}}
	r := asked(t, []string{"safety_violations == 0", "error_rate_increase < 0.1"}, stages...)
	early := r.Config.Checks[0]
	early.Role, early.Stage = analysis.RoleStage, 0
	r.Config.Checks = append(r.Config.Checks, early)
	p := made(t, r, Traffic{RPS: 10, Metrics: map[string]Base{"safety_violations": {Value: 1e-5}}})
	if len(p.Rules) != 1 || p.Rules[0].Requests != 19_800 {
		t.Fatalf("rules %+v, want one that looks at 19800 requests", p.Rules)
	}
	got := p.Rules[0]
	if want := 1 - math.Pow(1-1e-5, 19_800); math.Abs(*got.Chance-want) > 1e-5 {
		t.Errorf("a chance of %g, want %g", *got.Chance, want)
	}
	if back := 1 - math.Pow(1-*got.Tolerable, got.Requests); math.Abs(back-0.01) > 1e-4 {
		t.Errorf("the tolerable rate %g breaks it with a chance of %g, want 0.01", *got.Tolerable, back)
	}
	said(t, p.Warnings, "safety_violations_increase < 0.5")

	// Two are allowed.
	r.Config.Checks[0] = guard(t, "safety_violations <= 2")
	p = made(t, r, Traffic{RPS: 10, Metrics: map[string]Base{"safety_violations": {Value: 1e-4}}})
	if want := 1 - (distuv.Poisson{Lambda: 1.98}).CDF(2); math.Abs(*p.Rules[0].Chance-want) > 1e-9 {
		t.Errorf("a chance of %g for more than two, want %g", *p.Rules[0].Chance, want)
	}
	// What is not known is not made up.
	p = made(t, r, Traffic{RPS: 10})
	if p.Rules[0].Chance != nil || p.Rules[0].Rate != nil {
		t.Errorf("a chance without a rate: %+v", p.Rules[0])
	}
	for _, m := range p.Metrics {
		if m.Name == "safety_violations" && (m.Value != nil || m.Assumed) {
			t.Errorf("a rate is assumed of %+v", m)
		}
	}
}

func TestDurationsFitTheCriticality(t *testing.T) {
	t.Parallel()
	stages := func(low, medium, bake time.Duration) []Stage {
		return []Stage{{Name: "low", Weight: 1500, Duration: low}, {Name: "medium", Weight: 5000, Duration: medium}, {Name: "all", Weight: 10_000, Duration: bake}}
	}
	for _, tt := range []struct {
		name   string
		of     Criticality
		stages []Stage
		want   []string // none: it fits
	}{
		{"standard", Standard, stages(time.Minute, time.Minute, 0), nil},
		{"conversational", Conversational, stages(6*time.Hour, day, 0), nil},
		{"conversational, short", Conversational, stages(time.Hour, 2*time.Hour, day), []string{"1 h at low traffic", "at least 4 to 6 h", "2 h at medium traffic", "want 24 h"}},
		{"conversational, just so", Conversational, stages(5*time.Hour, day, 0), []string{"5 h at low traffic", "6 h are safer"}},
		{"safety-critical", SafetyCritical, stages(day, 3*day, 3*day), nil},
		{"safety-critical, short", SafetyCritical, stages(day, 3*day, 2*day), []string{"6 d in all", "a full week"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := asked(t, []string{"error_rate_increase < 0.1"}, tt.stages...)
			r.Criticality = tt.of
			p := made(t, r, Traffic{RPS: 1000})
			said(t, p.Warnings, tt.want...)
			if all := strings.Join(p.Warnings, " "); len(tt.want) == 0 && strings.Contains(all, string(tt.of)+":") {
				t.Errorf("it does not fit: %s", all)
			}
		})
	}
}

func TestPlanRefuses(t *testing.T) {
	t.Parallel()
	good := asked(t, []string{"error_rate_increase < 0.1"}, Stage{Name: "one", Weight: 500, Duration: time.Hour})
	for _, tt := range []struct {
		name   string
		change func(*Rollout, *Traffic)
		want   string
	}{
		{"no traffic", func(_ *Rollout, t *Traffic) { t.RPS = 0 }, "traffic of 0 requests"},
		{"no number", func(_ *Rollout, t *Traffic) { t.RPS = math.NaN() }, "traffic of NaN"},
		{"absurd traffic", func(_ *Rollout, t *Traffic) { t.RPS = 1e12 }, "up to 1e+09"},
		{"no stages", func(r *Rollout, _ *Traffic) { r.Stages = nil }, "no stages"},
		{"no weight", func(r *Rollout, _ *Traffic) { r.Stages = []Stage{{Name: "x"}} }, "weight 0: want 1 to 10000"},
		{"no interval", func(r *Rollout, _ *Traffic) { r.Interval = 0 }, "interval 0s"},
		{"no alpha", func(r *Rollout, _ *Traffic) { r.Config.Alpha = 0 }, "alpha 0"},
		{"a rate in percent", func(_ *Rollout, t *Traffic) { t.Metrics = map[string]Base{"error_rate": {Value: 2}} }, "want a fraction from 0 to 1"},
		{"no spread", func(_ *Rollout, t *Traffic) { t.Metrics = map[string]Base{"cost_per_task": {Value: 2}} }, "spread of cost_per_task"},
		{"a negative share", func(_ *Rollout, t *Traffic) { t.Metrics = map[string]Base{"error_rate": {Value: 0.1, Share: -1}} }, "share of error_rate"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r, traffic := good, Traffic{RPS: 10}
			tt.change(&r, &traffic)
			if p, err := For(r, traffic); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, %v; want an error with %q", p, err, tt.want)
			}
		})
	}
}

// Whatever rates and traffic there are, a plan is made of numbers.
func TestPlanOfExtremes(t *testing.T) {
	t.Parallel()
	guards := []string{"error_rate_increase < 0.1", "error_rate < 0.5", "task_completion_drop < 0.05", "task_completion_rate > 0.5", "safety_violations == 0", "safety_violations_increase < 0.5", "p95_latency < 3", "cost_per_task < 1"}
	for _, advance := range []string{analysis.AdvanceEstimate, analysis.AdvanceProof, analysis.AdvanceLadder} {
		for _, rate := range []float64{0, 1e-9, 0.5, 1} {
			for _, rps := range []float64{1e-9, 1, 1e9} {
				r := asked(t, guards, Stage{Name: "a", Weight: 1, Duration: 0}, Stage{Name: "b", Weight: 9999, Duration: 1000 * day, MaxHold: day}, Stage{Name: "c", Weight: 10_000})
				r.Config.Advance, r.Config.Floor = advance, 0.001
				p := made(t, r, Traffic{RPS: rps, Metrics: map[string]Base{
					"error_rate": {Value: rate}, "task_completion_rate": {Value: rate}, "safety_violations": {Value: rate},
					"p95_latency": {Value: 1e-9 + 1e6*rate, Spread: 10, Width: 5}, "cost_per_task": {Value: 1e-9 + rate, Spread: 50, Share: 1e-6},
				}})
				if math.IsNaN(p.Takes) || p.Takes < 1000*day.Seconds() {
					t.Errorf("rate %g at %g: takes %g", rate, rps, p.Takes)
				}
			}
		}
	}
}

func TestSay(t *testing.T) {
	t.Parallel()
	for seconds, want := range map[float64]string{
		0: "0 s", 59.6: "1 min", 90: "1 min 30 s", 3600: "1 h", 11_400: "3 h 10 min", 7199: "2 h", 86_400: "1 d", 90_000: "1 d 1 h", 604_799: "7 d",
		math.Inf(1): "over 100 years", 1e12: "over 100 years",
	} {
		if got := Say(seconds); got != want {
			t.Errorf("%g s is %q, want %q", seconds, got, want)
		}
	}
}

// TestABadCanaryIsHeld: with advance: estimate a canary beyond a limit does not come to the stages with more traffic, so it is caught at the weight at which it
// is held. One that is within all limits goes on.
func TestABadCanaryIsHeld(t *testing.T) {
	t.Parallel()
	stages := []Stage{
		{Name: "few", Weight: 500, Duration: 30 * time.Minute, MaxHold: 24 * time.Hour}, {Name: "half", Weight: 5000, Duration: 30 * time.Minute, MaxHold: 24 * time.Hour},
	}
	traffic := Traffic{RPS: 20, Metrics: map[string]Base{"error_rate": {Value: 0.01, Share: 1}}}
	r := asked(t, []string{"error_rate_increase < 0.1"}, stages...)
	r.Config.Floor = 0.001
	held := made(t, r, traffic)
	alone := asked(t, []string{"error_rate_increase < 0.1"}, stages[0])
	alone.Config.Floor = 0.001
	low := made(t, alone, traffic)
	for i, f := range Factors {
		two, one := held.Catches[0].Speeds[i], low.Catches[0].Speeds[i]
		if f < 1.5 {
			continue
		}
		if one.Median == nil || two.Median == nil || math.Abs(*one.Median / *two.Median - 1) > 0.01 {
			t.Errorf("%g times: caught after %v s with a second stage and %v s without, want the same: it never gets there", f, two.Median, one.Median)
		}
	}
	// Half a percent of errors more is soon seen at 50 %, and far from soon at 5 %.
	if m := held.Catches[0].Speeds[1].Median; m == nil || *m < time.Hour.Seconds() {
		t.Errorf("half again as many errors are caught after %v s, want more than an hour at 5%%", m)
	}
	// A criterion that is asked at the end of the first stage alone lets a canary go on that it allows.
	loose := asked(t, nil, stages...)
	loose.Config.Checks = []analysis.RoleCheck{{Check: guard(t, "error_rate_increase < 1").Check, Role: analysis.RolePromotion, Stage: 0}, {Check: guard(t, "error_rate_increase < 0.1").Check, Role: analysis.RoleGuard, Stage: 1}}
	on := made(t, loose, traffic)
	if m := on.Catches[0].Speeds[1].Median; m == nil || *m < 30*60 {
		t.Errorf("caught after %v s, want it in the second stage", m)
	}
}

// TestSpotless: a base without failures is no reason to say that nothing can be decided.
func TestSpotless(t *testing.T) {
	t.Parallel()
	for metric, value := range map[string]float64{"error_rate": 0, "task_completion_rate": 1} {
		check := map[string]string{"error_rate": "error_rate_increase < 0.1", "task_completion_rate": "task_completion_rate_drop < 0.05"}[metric]
		r := asked(t, []string{check}, Stage{Name: "few", Weight: 500, Duration: time.Hour})
		r.Config.Floor = 0.001
		p := made(t, r, Traffic{RPS: 10, Metrics: map[string]Base{metric: {Value: value, Share: 1}}})
		if !p.Decides {
			t.Errorf("%s: it decides nothing: %v", metric, p.Undecided)
		}
		said(t, p.Warnings, metric+": stable has no failures")
	}
}

// TestSettlingIsNamed: a stage that lasts longer because traffic has to settle says so.
func TestSettlingIsNamed(t *testing.T) {
	t.Parallel()
	r := asked(t, []string{"error_rate_increase < 0.1"}, Stage{Name: "few", Weight: 500, Duration: 10 * time.Second, MinRequests: 100})
	r.Settle = new(2 * time.Minute)
	p := made(t, r, Traffic{RPS: 1000, Metrics: map[string]Base{"error_rate": {Value: 0.01, Share: 1}}})
	if p.Stages[0].Because != becauseSettling {
		t.Errorf("it takes so long because of %s", p.Stages[0].Because)
	}
	said(t, p.Undecided, "for settling")
}
