package analysis

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// world makes polls of an agent.
type world struct {
	r                *rand.Rand
	perPoll          float64 // requests
	stableP, canaryP float64 // of errors
	stableD, canaryD float64 // of completion
	number           int64
	drift            func(n int64) float64 // multiplies all error rates
}

func (w *world) poll(weight int) Poll {
	w.number++
	share := float64(weight) / bake
	nc, ns := poisson(w.r, w.perPoll*share), poisson(w.r, w.perPoll*(1-share))
	f := 1.0
	if w.drift != nil {
		f = w.drift(w.number)
	}
	p := Poll{Number: w.number, Weight: weight, Requests: Requests{Stable: ns, Canary: nc}, Samples: map[string]Sample{}}
	p.Samples["error_rate"] = rates(ns, binomial(w.r, ns, f*w.stableP), nc, binomial(w.r, nc, f*w.canaryP))
	if w.stableD > 0 {
		p.Samples["task_completion_rate"] = rates(ns, binomial(w.r, ns, w.stableD), nc, binomial(w.r, nc, w.canaryD))
	}
	return p
}

// stages is a rollout whose limits tighten while the weight rises, with guards beside them.
func stages(t testing.TB, method string) Config {
	cs := checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "task_completion_drop <= 0.02")
	cs = append(cs, checks(t, RoleStage, 0, "error_rate_increase < 0.10")...)
	cs = append(cs, checks(t, RoleStage, 1, "error_rate_increase < 0.10", "error_rate < 0.05")...)
	cs = append(cs, checks(t, RoleStage, 2, "error_rate_increase < 0.10", "task_completion_regression < 0.02")...)
	cfg := settings(method, cs...)
	cfg.Floor, cfg.PollsPerWindow = 0, 600
	return cfg
}

// run is whether a rollout of three stages is ever rolled back.
func (w *world) run(t testing.TB, cfg Config, polls int) (violated bool, requests float64) {
	e := engine(t, cfg)
	for stage, weight := range []int{500, 2500, 5000} {
		e.BeginStage(stage, weight)
		for range polls {
			p := w.poll(weight)
			requests += p.Requests.Canary
			e.Observe(p)
			if r := e.Evaluate(stage, 100); r.Gate == Violated {
				return true, requests
			}
		}
	}
	return false, requests
}

// A canary exactly at its limits is rolled back with a chance of at most alpha over a whole rollout of ramped weights, looked at after
// every poll. More than the bound would be seen with a chance below 1e-4 if that chance were alpha.
func TestFalseRollbacksAtTheLimit(t *testing.T) {
	t.Parallel()
	const rollouts, polls = 250, 120
	cfg := stages(t, Sequential)
	cfg.Alpha = 0.05
	rolledBack := 0
	for i := range rollouts {
		w := &world{r: rand.New(rand.NewPCG(7, uint64(i))), perPoll: 1000, stableP: 0.02, canaryP: 0.022, stableD: 0.9, canaryD: 0.98 * 0.9,
			drift: func(n int64) float64 { return 1 + 0.5*math.Sin(float64(n)/40) }}
		if violated, _ := w.run(t, cfg, polls); violated {
			rolledBack++
		}
	}
	bound := 0
	for binomialTail(rollouts, bound, cfg.Alpha) > 1e-4 {
		bound++
	}
	if rolledBack >= bound {
		t.Errorf("%d of %d rolled back, want less than %d at alpha %g", rolledBack, rollouts, bound, cfg.Alpha)
	}
	t.Logf("%d of %d rolled back at the limit, alpha %g", rolledBack, rollouts, cfg.Alpha)
}

// The raw rule rolls the same canary, no worse than stable, back nearly always when it is looked at after every poll: the stream has power.
func TestThresholdRollsBackIdenticalVersions(t *testing.T) {
	t.Parallel()
	counts := map[string]int{}
	for _, method := range []string{Sequential, Threshold} {
		for i := range 40 {
			w := &world{r: rand.New(rand.NewPCG(8, uint64(i))), perPoll: 200, stableP: 0.02, canaryP: 0.02, stableD: 0.9, canaryD: 0.9}
			if violated, _ := w.run(t, stages(t, method), 150); violated {
				counts[method]++
			}
		}
	}
	if counts[Sequential] > 2 || counts[Threshold] < 30 {
		t.Errorf("rolled back of 40: %v, want at most 2 by evidence and at least 30 by threshold", counts)
	}
}

func TestDetection(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name             string
		canaryP, canaryD float64
		most             float64 // canary requests, on average
	}{
		{"errors twice", 0.04, 0.9, 2500},
		{"errors five times", 0.1, 0.9, 350},
		{"completion 90 to 80 %", 0.02, 0.8, 1200},
		{"completion 90 to 50 %", 0.02, 0.5, 200},
		{"nothing works", 1, 0, 80},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sum := 0.0
			for i := range 50 {
				w := &world{r: rand.New(rand.NewPCG(9, uint64(i))), perPoll: 200, stableP: 0.02, canaryP: tt.canaryP, stableD: 0.9, canaryD: tt.canaryD}
				violated, requests := w.run(t, stages(t, Sequential), 1000)
				if !violated {
					t.Fatalf("rollout %d was not rolled back", i)
				}
				sum += requests / 50
			}
			if sum > tt.most {
				t.Errorf("%.0f canary requests on average, want at most %.0f", sum, tt.most)
			}
			t.Logf("%.0f canary requests on average", sum)
		})
	}
}

// A regression that sets in late is found about as fast as one from the start: what the quiet time took from the bets does not hold up
// those that begin later.
func TestLateOnset(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...))
	e.cfg.PollsPerWindow, e.hazard = 6000, 1.0/6000
	e.BeginStage(0, 500)
	w := &world{r: rand.New(rand.NewPCG(10, 1)), perPoll: 200, stableP: 0.01, canaryP: 0.01}
	for range 4000 {
		e.Observe(w.poll(500))
	}
	if r := e.Evaluate(0, 1); r.Verdict == Violated {
		t.Fatal("violated before the regression")
	}
	w.canaryP, w.stableP = 0.05, 0.01
	needed := 0
	for e.Evaluate(0, 1).Verdict != Violated {
		if needed++; needed > 150 {
			t.Fatal("a rate of five times was not found within 1500 requests")
		}
		e.Observe(w.poll(500))
	}
	t.Logf("found after %d polls", needed)
}

func TestAbsoluteLimitNeedsNoStable(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		check string
		x     float64
		want  Verdict
	}{
		{"error_rate <= 0.05", 4, Met}, {"error_rate <= 0.05", 5.5, Undecided}, {"error_rate <= 0.05", 20, Violated},
		{"task_completion_rate >= 0.9", 92, Met}, {"task_completion_rate >= 0.9", 89, Undecided}, {"task_completion_rate >= 0.9", 60, Violated},
		{"error_rate == 0", 0, Met}, {"error_rate == 0", 3, Violated},
	} {
		cs := checks(t, RoleGuard, EveryStage, tt.check)
		e := engine(t, settings(Sequential, cs...))
		e.BeginStage(0, bake)
		e.Observe(one(1, bake, cs[0].Check.Metric, rates(0, 0, 100, tt.x)))
		r := e.Evaluate(0, 1)
		if r.Verdict != tt.want {
			t.Errorf("%s with %g of 100: %s, want %s: %s", tt.check, tt.x, r.Verdict, tt.want, r.Findings[0].Note)
		}
		if tt.want == Undecided && !(r.Findings[0].Needed > 0) {
			t.Errorf("%s: %g requests needed, want a number", tt.check, r.Findings[0].Needed)
		}
	}
}

func TestSequentialZeroBaseline(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		p    float64
		want Verdict
	}{{"no errors", 0, Met}, {"at the floor", 0.001, Met}, {"ten times the floor", 0.01, Violated}} {
		e := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...))
		e.BeginStage(0, 1000)
		verdict := Met
		for n := range 1000 {
			// As even as whole events can be.
			x := math.Floor(tt.p*100*float64(n+1)) - math.Floor(tt.p*100*float64(n))
			e.Observe(one(int64(n), 1000, "error_rate", rates(900, 0, 100, x)))
			if verdict = e.Evaluate(0, 1).Verdict; verdict == Violated {
				break
			}
		}
		if verdict != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, verdict, tt.want)
		}
	}
}

// TestWhatOnlyTheFloorAllows is told with its value: nobody could make sense of a change beyond the limit that is met.
func TestWhatOnlyTheFloorAllows(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name           string
		stable, canary float64 // errors of 100,000
		allowed        float64 // NaN: the floor decides nothing
		holds          bool
	}{
		{"within the limit", 1000, 1090, math.NaN(), true}, {"within the floor", 1000, 1180, 0.012, true}, {"beyond the floor", 1000, 1250, math.NaN(), false},
		{"from nothing", 0, 90, 0.001, true},
	} {
		e := engine(t, settings(Sequential, checks(t, RoleStage, 0, "error_rate_increase < 0.10")...))
		e.BeginStage(0, 1000)
		e.Observe(one(1, 1000, "error_rate", rates(1e5, tt.stable, 1e5, tt.canary)))
		f := e.Evaluate(0, 1).Findings[0]
		if !near(f.Allowed, tt.allowed, 1e-9) || (f.Verdict == Met) != tt.holds {
			t.Errorf("%s: %s, allowed %v, want %v; %s", tt.name, f.Verdict, f.Allowed, tt.allowed, f.Note)
		}
		if told := strings.Contains(f.Note, "the floor allows"); told == math.IsNaN(tt.allowed) {
			t.Errorf("%s: %s", tt.name, f.Note)
		}
	}
}

func TestQuantilesAreTested(t *testing.T) {
	t.Parallel()
	bounds := geometric(0.05, 1.1, 60)
	for _, tt := range []struct {
		check string
		slow  float64
		want  bool
	}{
		{"p95_latency_increase < 0.30", 1, false}, {"p95_latency_increase < 0.30", 1.25, false}, {"p95_latency_increase < 0.30", 2, true},
		{"p50_latency_increase < 0.30", 1.25, false}, {"p50_latency_increase < 0.30", 2, true},
		{"p95_latency < 4", 1, false}, {"p95_latency < 4", 2, true},
	} {
		t.Run(tt.check+trimFloat(tt.slow), func(t *testing.T) {
			t.Parallel()
			cs := checks(t, RoleGuard, EveryStage, tt.check)
			e := engine(t, settings(Sequential, cs...))
			e.BeginStage(0, 1000)
			r := rand.New(rand.NewPCG(11, 2))
			draw := func(n int, scale float64) Counts {
				c := Counts{Buckets: make([]float64, len(bounds)+1)}
				for range n {
					x, i := scale*r.ExpFloat64(), 0
					for i < len(bounds) && x > bounds[i] {
						i++
					}
					c.Buckets[i]++
				}
				return c
			}
			violated := false
			for n := range 600 {
				p := one(int64(n), 1000, cs[0].Check.Metric, Sample{Bounds: bounds, Stable: draw(90, 1), Canary: draw(10, tt.slow)})
				p.Requests = Requests{Stable: 90, Canary: 10}
				e.Observe(p)
				if violated = e.Evaluate(0, 1).Verdict == Violated; violated {
					break
				}
			}
			if violated != tt.want {
				t.Errorf("violated is %t, want %t", violated, tt.want)
			}
		})
	}
}

// Within a wide bucket nobody knows whether the canary is beyond 30 %, so that is no evidence.
func TestCoarseBucketsAreNoEvidence(t *testing.T) {
	t.Parallel()
	cs := checks(t, RoleGuard, EveryStage, "p95_latency_increase < 0.30")
	for _, tt := range []struct {
		name   string
		canary []float64
		want   bool
	}{{"the next bucket", []float64{0, 0, 100, 0, 0}, false}, {"the one after it", []float64{0, 0, 0, 100, 0}, true}} {
		e := engine(t, settings(Sequential, cs...))
		e.BeginStage(0, 1000)
		for n := range 50 {
			p := one(int64(n), 1000, "p95_latency", Sample{Bounds: []float64{0.5, 1, 2, 4}, Stable: Counts{Buckets: []float64{0, 900, 0, 0, 0}}, Canary: Counts{Buckets: tt.canary}})
			p.Requests = Requests{Stable: 900, Canary: 100}
			e.Observe(p)
		}
		if r := e.Evaluate(0, 1); (r.Verdict == Violated) != tt.want {
			t.Errorf("%s: %s, violated is to be %t: %s", tt.name, r.Verdict, tt.want, r.Findings[0].Note)
		}
	}
}

func TestMeansAreTested(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		check  string
		factor float64
		want   bool
	}{
		{"cost_per_task_increase < 0.10", 1, false}, {"cost_per_task_increase < 0.10", 1.1, false}, {"cost_per_task_increase < 0.10", 1.5, true},
		{"user_satisfaction_drop < 0.05", 0.95, false}, {"user_satisfaction_drop < 0.05", 0.7, true},
		{"cost_per_task <= 1.2", 1.2, false}, {"cost_per_task <= 1.2", 1.6, true},
	} {
		cs := checks(t, RoleGuard, EveryStage, tt.check)
		e := engine(t, settings(Sequential, cs...))
		e.BeginStage(0, 1000)
		r := rand.New(rand.NewPCG(12, 3))
		draw := func(n int, scale float64) Counts {
			c := Counts{N: float64(n)}
			for range n {
				c.X += scale * math.Exp(0.5*r.NormFloat64()-0.125) // mean 1
			}
			return c
		}
		violated := false
		for n := range 500 {
			p := one(int64(n), 1000, cs[0].Check.Metric, Sample{Stable: draw(90, 1), Canary: draw(10, tt.factor)})
			e.Observe(p)
			if violated = e.Evaluate(0, 1).Verdict == Violated; violated {
				break
			}
		}
		if violated != tt.want {
			t.Errorf("%s at %g times: violated is %t, want %t", tt.check, tt.factor, violated, tt.want)
		}
	}
}

func TestOnlyTheLargestIsBlamed(t *testing.T) {
	t.Parallel()
	e := engine(t, stages(t, Sequential))
	w := &world{r: rand.New(rand.NewPCG(13, 1)), perPoll: 200, stableP: 0.02, canaryP: 0.2, stableD: 0.9, canaryD: 0.9}
	e.BeginStage(0, 500)
	for e.Evaluate(0, 1).Verdict != Violated {
		e.Observe(w.poll(500))
	}
	r := e.Evaluate(0, 1)
	for _, f := range r.Findings {
		if violated := f.Metric == "error_rate"; (f.Verdict == Violated) != violated {
			t.Errorf("%s is %s: %s", f.Check, f.Verdict, f.Note)
		}
	}
	if r.Blame != "error_rate_increase <= 0.10" || r.EValue < 100 || r.Gate != Violated {
		t.Errorf("blame %q with %g, %s at the gate", r.Blame, r.EValue, r.Gate)
	}
}

// A limit of a later stage is tested from the start, and counts only in its stage.
func TestLaterLimitsDoNotCountYet(t *testing.T) {
	t.Parallel()
	cs := append(checks(t, RoleStage, 0, "error_rate_increase < 2"), checks(t, RoleStage, 1, "error_rate_increase < 0.10")...)
	cs = append(cs, checks(t, RolePromotion, EveryStage, "task_completion_regression < 0.02")...)
	e := engine(t, settings(Sequential, cs...))
	e.BeginStage(0, 1000)
	for n := range 100 {
		p := one(int64(n), 1000, "error_rate", rates(900, 18, 100, 4))
		p.Samples["task_completion_rate"] = rates(900, 810, 100, 90)
		e.Observe(p)
	}
	if r := e.Evaluate(0, 1); r.Verdict != Met || r.Gate != Met {
		t.Errorf("%s and %s at the gate of the stage with the wide limit, want met", r.Verdict, r.Gate)
	}
	e.BeginStage(1, 2500)
	e.Observe(one(200, 2500, "error_rate", rates(900, 18, 100, 4)))
	if r := e.Evaluate(1, 1); r.Verdict != Violated {
		t.Errorf("%s at once in the stage with the narrow limit, want violated", r.Verdict)
	}
}

func TestPromotionIsAskedAtTheGate(t *testing.T) {
	t.Parallel()
	cs := append(checks(t, RoleStage, 0, "error_rate_increase < 2"), checks(t, RolePromotion, EveryStage, "task_completion_regression < 0.02")...)
	for _, method := range []string{Sequential, Threshold} {
		e := engine(t, settings(method, cs...))
		e.BeginStage(0, 1000)
		for n := range 100 {
			p := one(int64(n), 1000, "error_rate", rates(900, 18, 100, 2))
			p.Samples["task_completion_rate"] = rates(900, 810, 100, 50)
			e.Observe(p)
		}
		r := e.Evaluate(0, 1)
		if r.Verdict != Met || r.Gate != Violated || r.Blame != "task_completion_regression < 0.02" || r.Findings[1].Verdict != Violated {
			t.Errorf("%s: %s, %s at the gate, blame %q, %s", method, r.Verdict, r.Gate, r.Blame, r.Findings[1].Verdict)
		}
	}
}

// What convicts a canary that was good for days is shown, not the days.
func TestLateRegressionShowsTheLastPolls(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10")...))
	e.BeginStage(0, 2000)
	w := &world{r: rand.New(rand.NewPCG(12, 1)), perPoll: 500, stableP: 0.01, canaryP: 0.01}
	for range 6000 {
		e.Observe(w.poll(2000))
	}
	if f := e.Evaluate(0, 1).Findings[0]; f.Lately || f.Verdict != Met {
		t.Fatalf("before the regression: %+v", f)
	}
	w.canaryP = 0.02
	after := 0
	for ; after < 1000 && e.Peek(0, 1).Verdict != Violated; after++ {
		e.Observe(w.poll(2000))
	}
	f := e.Evaluate(0, 1).Findings[0]
	if f.Verdict != Violated || !f.Lately || !(f.Change > 0.7) || f.Upper <= f.Limit || f.CanaryN > 20_000 {
		t.Errorf("after the regression: %+v", f)
	}
	if !strings.HasPrefix(f.Note, "Lately: ") {
		t.Errorf("the note is %q", f.Note)
	}
}
