package analysis

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// tenMetrics is a rollout that asks for nearly everything.
func tenMetrics(t testing.TB) Config {
	cs := checks(t, RoleGuard, EveryStage, "safety_violations <= 50", "error_rate_increase <= 0.10", "task_completion_drop <= 0.05",
		"p95_latency_increase <= 0.50", "time_to_first_token_increase <= 0.50", "tool_error_rate_increase <= 0.2",
		"cost_per_task_increase <= 0.3", "tokens_per_task_increase <= 0.3", "user_satisfaction_drop <= 0.1")
	cs = append(cs, checks(t, RoleStage, 0, "error_rate_increase < 0.10", "p50_latency_increase < 0.3", "queue_depth < 40")...)
	cs = append(cs, checks(t, RoleStage, 1, "error_rate_increase < 0.05", "error_rate < 0.2", "p95_latency < 4")...)
	cs = append(cs, checks(t, RolePromotion, EveryStage, "task_completion_regression < 0.02")...)
	cfg := settings(Sequential, cs...)
	c, err := ParseCondition("stable.error_rate > 0.20")
	if err != nil {
		t.Fatal(err)
	}
	cfg.FreezeWhen = []Condition{c}
	return cfg
}

var tenBounds = geometric(0.05, 1.1, 60)

// tenPoll is a poll of everything in tenMetrics.
func tenPoll(r *rand.Rand, n int64, weight int) Poll {
	nc, ns := poisson(r, float64(weight)/50), poisson(r, float64(bake-weight)/50)
	p := Poll{Number: n, Weight: weight, Requests: Requests{Stable: ns, Canary: nc}, Samples: map[string]Sample{}}
	for name, rate := range map[string]float64{"error_rate": 0.02, "task_completion_rate": 0.9, "tool_error_rate": 0.05, "safety_violations": 0.0001} {
		p.Samples[name] = rates(ns, binomial(r, ns, rate), nc, binomial(r, nc, rate))
	}
	sum := func(n float64) Counts { return Counts{N: n, X: n + math.Sqrt(n)*r.NormFloat64()/3} }
	for _, name := range []string{"cost_per_task", "tokens_per_task", "user_satisfaction"} {
		s := Sample{Stable: sum(ns), Canary: sum(nc)}
		s.Canary.X, s.Stable.X = max(0, s.Canary.X), max(0, s.Stable.X)
		p.Samples[name] = s
	}
	draw := func(n float64) Counts {
		c := Counts{Buckets: make([]float64, len(tenBounds)+1)}
		for range int(n) {
			c.Buckets[min(len(tenBounds), int(max(0, 20+8*r.NormFloat64())))]++
		}
		return c
	}
	for _, name := range []string{"p50_latency", "p95_latency", "time_to_first_token"} {
		p.Samples[name] = Sample{Bounds: tenBounds, Stable: draw(ns), Canary: draw(nc)}
	}
	p.Samples["queue_depth"] = Sample{Stable: Counts{Value: 3, HasValue: true}, Canary: Counts{Value: 30 + 8*r.NormFloat64(), HasValue: true}}
	return p
}

// An engine that is put away and taken up again at any place, and sees some polls again, says exactly what one does that ran through.
func TestStateCutAnywhere(t *testing.T) {
	t.Parallel()
	for _, advance := range []string{AdvanceEstimate, AdvanceProof, AdvanceLadder} {
		cfg := tenMetrics(t)
		cfg.Advance, cfg.Stages = advance, 3
		cfg.Overdispersion, cfg.CohortSpread = map[string]float64{"error_rate": 1.5}, map[string]float64{"cost_per_task": 0.02}
		if advance != AdvanceEstimate {
			cfg.Checks = append(cfg.Checks[:11], cfg.Checks[12:]...) // without the plain value
		}
		through, cut := engine(t, cfg), engine(t, cfg)
		r := rand.New(rand.NewPCG(20, 1))
		var last Poll
		for n := range int64(240) {
			stage, weight := int(n/80), []int{500, 2500, bake}[n/80]
			through.BeginStage(stage, weight)
			cut.BeginStage(stage, weight)
			if r.IntN(3) == 0 {
				raw, err := cut.State()
				if err != nil {
					t.Fatal(err)
				}
				cut = engine(t, cfg)
				if err := cut.Restore(raw); err != nil {
					t.Fatal(err)
				}
				if n > 0 && cut.Observe(last) {
					t.Fatal("a poll was taken twice")
				}
				cut.BeginStage(stage, weight)
				again, err := cut.State()
				if err != nil || string(raw) != string(again) {
					t.Fatalf("poll %d: the state is not the same after a round trip (%v):\n%s\n%s", n, err, raw, again)
				}
			}
			last = tenPoll(r, n, weight)
			last.Settling = n%80 < 3
			last.Conversations = Requests{Stable: 20, Canary: float64(r.IntN(4))}
			if n%17 == 3 { // an outage of both
				last.Samples["error_rate"] = rates(9000, 8000, 500, 450)
			}
			through.Observe(last)
			cut.Observe(last)
			if diff := cmp.Diff(through.Evaluate(stage, 50), cut.Evaluate(stage, 50), cmpopts.EquateNaNs()); diff != "" {
				t.Fatalf("poll %d: %s", n, diff)
			}
		}
	}
}

func TestStateIsSmall(t *testing.T) {
	t.Parallel()
	cfg := tenMetrics(t)
	e := engine(t, cfg)
	r := rand.New(rand.NewPCG(21, 1))
	for n := range int64(1500) {
		e.BeginStage(int(n/750), []int{500, 5000}[n/750])
		e.Observe(tenPoll(r, n, e.weight))
	}
	raw, err := e.State()
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) > 11<<10 {
		t.Errorf("the state has %d bytes, want at most 11 KiB", len(raw))
	}
	t.Logf("%d bytes for %d tests of %d metrics", len(raw), len(e.tests), len(cfg.Metrics))
}

func TestRestoreRefuses(t *testing.T) {
	t.Parallel()
	cfg := settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "p95_latency_increase < 1")...)
	e := engine(t, cfg)
	e.Observe(one(4, 500, "error_rate", rates(100, 3, 100, 3)))
	raw, err := e.State()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ name, text, wantErr string }{
		{"garbage", "nonsense", "restore the state of the analysis"},
		{"an array", "[]", "restore the state of the analysis"},
		{"null", "null", "version 0, want 1 to 2"},
		{"a newer version", strings.Replace(string(raw), `"version":2`, `"version":3`, 1), "newer version: 3"},
		{"a broken ladder", strings.Replace(string(raw), `"error_rate|true":"`, `"error_rate|true":"AAAAAAAA`, 1), "whole number of float32"},
		{"an unknown field", strings.Replace(string(raw), `"poll":4`, `"poll":4,"x":1`, 1), "unknown field"},
		{"out of range", strings.Replace(string(raw), `"weight":0`, `"weight":-1`, 1), "out of range"},
		{"another metric", strings.Replace(string(raw), `"p50_latency"`, `"p51_latency"`, 1), "another rollout"},
		{"another test", strings.Replace(string(raw), `|1.1|`, `|1.2|`, 1), "another rollout"},
		{"more after it", string(raw) + "{}", "restore the state"},
		{"broken floats", strings.Replace(string(raw), `"s":"`, `"s":"AAAA`, 1), "whole number of float64"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.text == string(raw) {
				t.Fatal("the state was not spoiled")
			}
			fresh := engine(t, cfg)
			if err := fresh.Restore(json.RawMessage(tt.text)); !errorIs(err, tt.wantErr) {
				t.Errorf("error %v, want one with %q", err, tt.wantErr)
			}
			if !fresh.Observe(one(1, 500, "error_rate", rates(1, 0, 1, 0))) {
				t.Error("it is not as new afterwards")
			}
		})
	}
	if err := e.Restore(nil); err != nil || !e.Observe(one(1, 500, "error_rate", rates(1, 0, 1, 0))) {
		t.Errorf("nothing is not a fresh start: %v", err)
	}
}

func TestRepeatedAndLostPolls(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "safety_violations <= 1")...))
	p := one(5, 500, "error_rate", rates(900, 9, 100, 5))
	p.Samples["safety_violations"] = rates(900, 0, 100, 1)
	for _, step := range []struct {
		number int64
		want   bool
		n      float64
	}{{5, true, 100}, {5, false, 100}, {4, false, 100}, {6, true, 200}, {90, true, 300}, {7, false, 300}, {-1, false, 300}} {
		p.Number = step.number
		before := e.Evaluate(0, 1).Findings[0].EValue
		if got := e.Observe(p); got != step.want {
			t.Errorf("poll %d taken: %t, want %t", step.number, got, step.want)
		}
		f := e.Evaluate(0, 1)
		if f.Findings[0].CanaryN != step.n || (f.Findings[0].EValue == before) == step.want || f.Findings[1].CanaryX != step.n/100 {
			t.Errorf("after poll %d: %g trials, want %g; e-value from %g to %g", step.number, f.Findings[0].CanaryN, step.n, before, f.Findings[0].EValue)
		}
	}
}

func TestFaultySamplesAreLeftOut(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]Sample{
		"NaN":              rates(100, 1, math.NaN(), 1),
		"infinite":         rates(100, 1, 100, math.Inf(1)),
		"negative":         rates(-100, 1, 100, 1),
		"huge":             rates(1e300, 1, 100, 1),
		"buckets alone":    {Stable: Counts{Buckets: []float64{1}}},
		"buckets too few":  {Bounds: []float64{1, 2}, Canary: Counts{Buckets: []float64{1, 2}}},
		"bounds that fall": {Bounds: []float64{2, 1}, Canary: Counts{Buckets: []float64{1, 2, 3}}},
		"NaN in buckets":   {Bounds: []float64{1, 2}, Canary: Counts{Buckets: []float64{1, math.NaN(), 3}}},
	} {
		metric := "error_rate"
		if s.Bounds != nil || s.Stable.Buckets != nil {
			metric = "p95_latency"
		}
		cs := checks(t, RoleStage, 0, metric+"_increase < 0.1")
		e := engine(t, settings(Sequential, cs...))
		if !e.Observe(one(1, 500, metric, s)) {
			t.Errorf("%s: the whole poll was refused", name)
		}
		f := e.Evaluate(0, 1).Findings[0]
		if e.Ignored() == 0 || f.CanaryN != 0 || f.EValue != 1 || f.Verdict != NoData {
			t.Errorf("%s: %d ignored, %+v", name, e.Ignored(), f)
		}
	}
}

func TestOtherBucketsBeginAnew(t *testing.T) {
	t.Parallel()
	e := engine(t, settings(Threshold, checks(t, RoleStage, 0, "p95_latency < 10")...))
	sample := func(bounds ...float64) Sample {
		b := make([]float64, len(bounds)+1)
		b[0] = 50
		return Sample{Bounds: bounds, Stable: Counts{Buckets: b}, Canary: Counts{Buckets: b}}
	}
	e.Observe(one(1, 500, "p95_latency", sample(1, 2)))
	e.Observe(one(2, 500, "p95_latency", sample(1, 2)))
	if n := e.Evaluate(0, 1).Findings[0].CanaryN; n != 100 {
		t.Errorf("%g observations, want 100", n)
	}
	e.Observe(one(3, 500, "p95_latency", sample(1, 2, 3)))
	if n := e.Evaluate(0, 1).Findings[0].CanaryN; n != 50 {
		t.Errorf("%g observations in the new buckets, want 50", n)
	}
}

func TestFreeze(t *testing.T) {
	t.Parallel()
	for _, method := range []string{Sequential, Threshold} {
		cfg := settings(method, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "error_rate <= 0.1", "safety_violations == 0")...)
		c, err := ParseCondition("stable.error_rate > 0.20")
		if err != nil {
			t.Fatal(err)
		}
		cfg.FreezeWhen = []Condition{c}
		e := engine(t, cfg)
		e.BeginStage(0, 1000)
		e.Observe(one(1, 1000, "error_rate", rates(1, 1, 0, 0))) // one of one is no outage
		if frozen, _ := e.Frozen(); frozen {
			t.Errorf("%s: frozen by one failure", method)
		}
		e.Observe(one(2, 1000, "error_rate", rates(900, 9, 100, 1)))
		for n := range 20 {
			p := one(int64(3+n), 1000, "error_rate", rates(900, 700, 100, 99))
			e.Observe(p)
			if frozen, why := e.Frozen(); !frozen || !strings.Contains(why, "stable.error_rate > 0.20") {
				t.Fatalf("%s: not frozen in an outage: %q", method, why)
			}
			if r := e.Evaluate(0, 1); r.Verdict == Violated || r.Findings[0].CanaryN != 100 {
				t.Fatalf("%s: the outage is blamed on the canary: %+v", method, r)
			}
		}
		p := one(30, 1000, "error_rate", rates(900, 700, 100, 99))
		p.Samples["safety_violations"] = rates(900, 0, 100, 1)
		e.Observe(p)
		if r := e.Evaluate(0, 1); !r.Safety {
			t.Errorf("%s: a safety violation does not count while frozen", method)
		}
		for n := range freezePolls {
			e.Observe(one(int64(40+n), 1000, "error_rate", rates(900, 9, 100, 1)))
		}
		if frozen, _ := e.Frozen(); frozen {
			t.Errorf("%s: still frozen after the outage", method)
		}
		e.Observe(one(50, 1000, "error_rate", rates(900, 9, 100, 1)))
		if n := e.Evaluate(0, 1).Findings[0].CanaryN; n <= 100 {
			t.Errorf("%s: %g trials after the outage, want more than 100", method, n)
		}
	}
}

func TestConfigRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		change  func(*Config)
		wantErr string
	}{
		{"method", func(c *Config) { c.Method = "guess" }, `method "guess": want sequential or threshold`},
		{"advance", func(c *Config) { c.Advance = "" }, "want estimate, proof or ladder"},
		{"alpha", func(c *Config) { c.Alpha = math.NaN() }, "alpha NaN"},
		{"beta", func(c *Config) { c.Beta = 1 }, "beta 1"},
		{"floor", func(c *Config) { c.Floor = -1 }, "floor -1"},
		{"polls", func(c *Config) { c.PollsPerWindow = -1 }, "polls per window -1"},
		{"proof by threshold", func(c *Config) { c.Method, c.Advance = Threshold, AdvanceProof }, "a raw rule proves nothing"},
		{"metric twice", func(c *Config) { c.Metrics = append(c.Metrics, c.Metrics[1]) }, "is there twice"},
		{"ambiguous metric", func(c *Config) { c.Metrics[1].Name = "price_drop" }, "want another name"},
		{"kind", func(c *Config) { c.Metrics[1].Kind = "guess" }, `kind "guess"`},
		{"better", func(c *Config) { c.Metrics[1].Better = "faster" }, "want lower or higher"},
		{"quantile", func(c *Config) { c.Metrics[3].Quantile = 95 }, "quantile 95"},
		{"role", func(c *Config) { c.Checks[0].Role = "judge" }, `role "judge"`},
		{"stage", func(c *Config) { c.Checks[0].Stage = -2 }, "stage -2"},
		{"check of no parser", func(c *Config) { c.Checks[0].Check.Op = "" }, "was not read by ParseCheck"},
		{"unknown metric", func(c *Config) { c.Checks[0].Check.Metric = "errors" }, "is not a metric of this rollout"},
		{"freeze on an unknown metric", func(c *Config) { c.FreezeWhen = []Condition{{Metric: "errors", Op: Above}} }, "is not a metric of this rollout"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cfg := settings(Sequential, checks(t, RoleStage, 0, "error_rate_increase < 0.1")...)
			tt.change(&cfg)
			if _, err := New(cfg); !errorIs(err, tt.wantErr) {
				t.Errorf("error %v, want one with %q", err, tt.wantErr)
			}
		})
	}
}

// Two limits of one metric share what one has alone, and all shares together are 1.
func TestSharesSumToOne(t *testing.T) {
	t.Parallel()
	e := engine(t, tenMetrics(t))
	sum, byMetric := 0.0, map[string]float64{}
	for _, g := range e.groups {
		sum += g.share
		byMetric[g.meter.metric.Name] += g.share
	}
	if !near(sum, 1, 1e-12) {
		t.Errorf("the shares sum to %g", sum)
	}
	for name, share := range byMetric {
		if !near(share, 1/float64(len(byMetric)), 1e-12) {
			t.Errorf("%s has %g of %d metrics", name, share, len(byMetric))
		}
	}
}

// tenLimits is a rollout with one limit on each of ten metrics: three ratios, a counted rate, three means and three quantiles.
func tenLimits(t testing.TB) Config {
	return settings(Sequential, checks(t, RoleGuard, EveryStage, "error_rate_increase <= 0.10", "task_completion_drop <= 0.05", "tool_error_rate_increase <= 0.2",
		"safety_violations_increase <= 1", "cost_per_task_increase <= 0.3", "tokens_per_task_increase <= 0.3", "user_satisfaction_drop <= 0.1",
		"p50_latency_increase <= 0.3", "p95_latency_increase <= 0.50", "time_to_first_token_increase <= 0.50")...)
}

// BenchmarkPoll is a poll's whole analysis: what is observed, and what follows from it.
func BenchmarkPoll(b *testing.B) {
	for name, cfg := range map[string]Config{"TenMetrics": tenLimits(b), "TwelveMetricsAndSixteenChecks": tenMetrics(b)} {
		b.Run(name, func(b *testing.B) {
			e := engine(b, cfg)
			e.BeginStage(0, 2500)
			r := rand.New(rand.NewPCG(22, 1))
			polls := make([]Poll, 64)
			for i := range polls {
				polls[i] = tenPoll(r, 0, 2500)
			}
			b.ReportAllocs()
			for n := int64(1); b.Loop(); n++ {
				p := &polls[n%64]
				p.Number = n
				e.Observe(*p)
				e.Peek(0, 50)
			}
		})
	}
}

// A poll allocates nothing once the engine runs.
func TestAPollAllocatesNothing(t *testing.T) {
	e := engine(t, tenMetrics(t))
	e.BeginStage(0, 2500)
	r := rand.New(rand.NewPCG(23, 1))
	polls := make([]Poll, 200)
	for i := range polls {
		polls[i] = tenPoll(r, int64(i), 2500)
	}
	for _, p := range polls[:100] {
		e.Observe(p)
		e.Peek(0, 50)
	}
	next := 100
	if n := testing.AllocsPerRun(90, func() {
		e.Observe(polls[next])
		e.Peek(0, 50)
		next++
	}); n > 0 {
		t.Errorf("%g allocations per poll", n)
	}
}

func BenchmarkEvaluate(b *testing.B) {
	e := engine(b, tenLimits(b))
	e.BeginStage(0, 2500)
	r := rand.New(rand.NewPCG(22, 1))
	for n := range int64(20) {
		e.Observe(tenPoll(r, n, 2500))
	}
	b.ReportAllocs()
	for b.Loop() {
		e.Evaluate(0, 50)
	}
}
