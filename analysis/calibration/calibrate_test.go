package calibration

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
)

// check is a check of a role in every stage.
func check(t testing.TB, text string, role analysis.Role) analysis.RoleCheck {
	t.Helper()
	c, err := analysis.ParseCheck(text)
	if err != nil {
		t.Fatal(err)
	}
	return analysis.RoleCheck{Check: c, Role: role, Stage: analysis.EveryStage}
}

// day is a rollout of a day over four stages.
func day(t testing.TB, metrics []analysis.Metric, checks ...string) Rollout {
	t.Helper()
	r := Rollout{Config: analysis.Config{
		Method: analysis.Sequential, Alpha: 0.01, Beta: 0.05, Floor: 0.001, Advance: analysis.AdvanceEstimate, Metrics: metrics,
	}}
	for _, text := range checks {
		r.Config.Checks = append(r.Config.Checks, check(t, text, analysis.RoleGuard))
	}
	for _, s := range []struct {
		name   string
		weight int
	}{{"initial", 500}, {"quarter", 2500}, {"half", 5000}, {"most", 7500}} {
		r.Stages = append(r.Stages, Stage{Name: s.name, Weight: s.weight, Duration: 6 * time.Hour, MinRequests: 50})
	}
	return r
}

func calibrate(t *testing.T, h *History, r Rollout) *Result {
	t.Helper()
	got, err := Calibrate(h, r, Options{Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// promiseOf is when a regression is caught half of the times, in seconds.
func promiseOf(t *testing.T, r *Result, metric string, factor float64) float64 {
	t.Helper()
	for _, p := range r.Promises {
		if p.Metric == metric && p.Factor == factor {
			if p.Median == nil {
				return inf
			}
			return *p.Median
		}
	}
	t.Fatalf("no promise for %s ×%v", metric, factor)
	return 0
}

func TestCalibrateIndependentRequests(t *testing.T) {
	t.Parallel()
	h := synth{seed: 5, days: 7, step: 15 * time.Second, rps: 10, diurnal: 0.3, errors: 0.01}.history()
	r := day(t, h.Metrics, "error_rate_increase < 0.10", "total_requests >= 50")
	got := calibrate(t, h, r)
	m := got.Metrics[0]
	// The rate swings with the traffic, so the mean over requests is a little above 1 %.
	if m.Base == nil || math.Abs(*m.Base-0.0104) > 0.0003 || math.Abs(got.Traffic.Mean-10) > 0.1 {
		t.Errorf("base %v at %v requests a second, want about 0.0104 at 10", m.Base, got.Traffic.Mean)
	}
	if got.Traffic.Peak < 12 || got.Traffic.Peak > 14 || got.Traffic.Trough < 6 || got.Traffic.Trough > 8 {
		t.Errorf("traffic %+v, want 7 to 13 requests a second", got.Traffic)
	}
	if m.Used > 1.25 {
		t.Errorf("φ = %v of independent requests, want about 1", m.Used)
	}
	// Of 100 rollouts at alpha 1 %, 5 or more would be rolled back with a chance below 0.4 %.
	if !got.Replays.Settled || got.Replays.Used.TakenBack > 0.04 || got.Replays.Threshold < 0.9 {
		t.Errorf("replays %+v: want few rolled back, but by the raw rule most", got.Replays)
	}
	// At small weights a regression ×f at a rate p takes ln(1/α)/I canary requests at least, I ≈ p·(f·ln(f/b)−f+b), with the floor in b. The
	// product promises no more than a small multiple of that.
	for _, f := range []float64{2, 5} {
		p, b := *m.Base, 1.1 + 0.001 / *m.Base
		bound := m.Used * math.Log(100) / (p * (f*math.Log(f/b) - f + b)) / (0.05 * got.Traffic.Mean)
		median := promiseOf(t, got, "error_rate", f)
		if median < bound/2 || median > 3*bound+2*got.Promises[0].Poll {
			t.Errorf("×%v is caught after %v s, the bound is %.0f s", f, median, bound)
		}
	}
	if got.Tightness != nil {
		for _, tight := range got.Tightness {
			if tight.Stage != "initial" {
				t.Errorf("a limit of 10 %% is tighter than chance in stage %s: %+v", tight.Stage, tight)
			}
		}
	}
}

// With bursts, evidence that takes requests for independent doubts identical versions; with the φ that is measured it does not.
func TestCalibrateBursts(t *testing.T) {
	t.Parallel()
	h := synth{seed: 6, days: 7, step: 15 * time.Second, rps: 10, errors: 0.01, burst: 5}.history()
	r := day(t, h.Metrics, "error_rate_increase < 0.02")
	got := calibrate(t, h, r)
	if phi := got.Overdispersion["error_rate"]; phi < 8.5 || phi > 14 {
		t.Errorf("φ = %v, want a little above 9", phi)
	}
	if !got.Replays.Settled || got.Replays.Used.TakenBack > 0.04 {
		t.Errorf("with φ: %+v", got.Replays)
	}
	p := newPlayer(h, r, 2000, 1)
	runs, err := p.replayAll(r.replayed(h, p.polls), 100, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	without := (&calibration{}).rates(runs)
	if without.TakenBack < 0.2 || without.Doubtful < 0.3 {
		t.Errorf("without φ: %+v, want many rolled back", without)
	}
	said := strings.Join(got.Warnings, "\n")
	for _, want := range []string{"error_rate_increase < 0.02 is tighter than what chance does to identical versions in stage initial", "expect held stages"} {
		if !strings.Contains(said, want) {
			t.Errorf("warnings want %q:\n%s", want, said)
		}
	}
}

// Users who differ make cohorts differ for good: with the spread that is measured, identical versions are not doubted.
func TestCalibrateUsers(t *testing.T) {
	t.Parallel()
	h := synth{seed: 7, days: 3, step: 2 * time.Minute, rps: 60, errors: 0.05, by: Users, units: 400, spread: 0.8}.history()
	r := day(t, h.Metrics, "error_rate_increase < 0.10")
	got := calibrate(t, h, r)
	cv := math.Sqrt(math.Exp(0.8*0.8) - 1)
	want := cv / math.Sqrt(400*0.05*0.95)
	if s := got.CohortSpread["error_rate"]; s < want/2 || s > 2*want {
		t.Errorf("cohort spread %v, want about %.2f", s, want)
	}
	if !got.Replays.Settled {
		t.Errorf("with the spread: %+v", got.Replays)
	}
	p := newPlayer(h, r, 2000, 1)
	runs, err := p.replayAll(r.replayed(h, p.polls), 100, nil, false)
	if err != nil {
		t.Fatal(err)
	}
	if without := (&calibration{}).rates(runs); without.Doubtful < 0.15 {
		t.Errorf("without the spread: %+v, want many doubted", without)
	}
}

func TestCalibrateIsRepeatable(t *testing.T) {
	t.Parallel()
	h := synth{seed: 8, days: 3, step: time.Minute, rps: 5, errors: 0.02, by: Instances, units: 3, burst: 3}.history()
	r := day(t, h.Metrics, "error_rate_increase < 0.10")
	if diff := cmp.Diff(calibrate(t, h, r), calibrate(t, h, r)); diff != "" {
		t.Errorf("the same seed (-first +second):\n%s", diff)
	}
}

func TestCalibrateAShortHistory(t *testing.T) {
	t.Parallel()
	h := synth{seed: 9, days: 0.5, step: time.Minute, rps: 5, errors: 0.02, metrics: []string{"error_rate", "safety_violations"}}.history()
	r := day(t, append(presets(t, "error_rate", "safety_violations", "p95_latency"), analysis.Metric{Name: "queue", Kind: analysis.Value, Better: analysis.Lower}),
		"error_rate_increase < 0.10", "safety_violations == 0", "p95_latency_increase < 0.5", "queue < 5")
	h.Metrics = append(h.Metrics, presets(t, "p95_latency")...)
	for i := range h.Units {
		h.Units[i].Metrics = append(h.Units[i].Metrics, Counted{})
	}
	got := calibrate(t, h, r)
	if got.Replays.Scale != 0.5 {
		t.Errorf("scale %v, want 0.5", got.Replays.Scale)
	}
	said := strings.Join(got.Warnings, "\n")
	for _, want := range []string{
		"the history is shorter than the rollout", "50 % of their durations", "p95_latency has no data", "queue is a plain value",
		"safety_violations happens to the present version too", "cohort spread is not known",
	} {
		if !strings.Contains(said, want) {
			t.Errorf("warnings want %q:\n%s", want, said)
		}
	}
	for _, m := range got.Metrics {
		if m.Name == "safety_violations" && (m.Tested || m.Fires == nil || *m.Fires < 0.999) {
			t.Errorf("a rule that is broken by one request in 50: %+v", m)
		}
	}
}

func TestCalibrateRefuses(t *testing.T) {
	t.Parallel()
	h := synth{seed: 1, days: 0.2, step: time.Minute, rps: 1, errors: 0.1}.history()
	good := day(t, h.Metrics, "error_rate_increase < 0.10")
	for _, tt := range []struct {
		name   string
		h      *History
		change func(*Rollout)
		want   string
	}{
		{"no stages", h, func(r *Rollout) { r.Stages = nil }, "without stages"},
		{"no time", h, func(r *Rollout) { r.Stages = []Stage{{Name: "all", Weight: full}} }, "no duration"},
		{"a weight of nothing", h, func(r *Rollout) { r.Stages = []Stage{{Name: "none", Duration: time.Hour}} }, "stage none"},
		{"no such metric", h, func(r *Rollout) { *r = day(t, presets(t, "tool_error_rate"), "tool_error_rate < 0.1") }, "none of the metrics"},
		{"rules only", h, func(r *Rollout) { *r = day(t, presets(t, "safety_violations"), "safety_violations == 0") }, "tests nothing"},
		{"polls longer than the rollout", h, func(r *Rollout) { r.Stages = []Stage{{Name: "brief", Weight: 500, Duration: time.Second}} }, "longer than the rollout"},
		{"hardly any polls", NewBuilder(h.Metrics, began, began.Add(time.Hour), 20*time.Minute, Whole).History(), func(*Rollout) {}, "3 polls"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := good
			tt.change(&r)
			if _, err := Calibrate(tt.h, r, Options{}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

// TestOutages: a history with outages of everybody has a φ beyond all bounds. It is told, with what to do about it, and the most that can be
// set is used.
func TestOutages(t *testing.T) {
	t.Parallel()
	metrics := presets(t, "error_rate")
	b := NewBuilder(metrics, began, began.Add(48*time.Hour), time.Minute, Whole)
	rng := rand.New(rand.NewPCG(3, 3))
	for i := range 48 * 60 {
		n, x := 6e6, float64(60_000+rng.IntN(100))
		if i%600 > 500 {
			x = n
		}
		b.Add(began.Add(time.Duration(i+1)*time.Minute), "", "error_rate", n, x)
	}
	got := calibrate(t, b.History(), day(t, metrics, "error_rate_increase < 0.10"))
	m := got.Metrics[0]
	if m.Phi == nil || *m.Phi <= mostPhi || m.Used != mostPhi || got.Overdispersion["error_rate"] != mostPhi {
		t.Errorf("φ %v, used %v, to set %v; want more than %v measured and that used", m.Phi, m.Used, got.Overdispersion, mostPhi)
	}
	words := strings.Join(got.Warnings, "\n")
	if !strings.Contains(words, "beyond the 1000 that can be set") || !strings.Contains(words, "freeze_when") {
		t.Errorf("warnings:\n%s\nwant what to do", words)
	}
}

// φ is raised where identical versions are doubted too often, by about as much as the evidence is too strong, and not without end.
func TestRaise(t *testing.T) {
	t.Parallel()
	runs := make([]verdicts, 100)
	for i := range runs {
		runs[i] = verdicts{most: 1, byMetric: map[string]float64{"calm": 1, "wild": 1, "rare": 1}}
		if i < 10 {
			runs[i].byMetric["wild"] = 400 // 20²
		}
		if i < 5 {
			runs[i].byMetric["rare"] = 1e6 // as often as is allowed
		}
	}
	c := &calibration{out: &Result{Metrics: []Metric{{Name: "calm", Used: 1}, {Name: "wild", Used: 3}, {Name: "rare", Used: 1}}}}
	if !c.raise(runs) {
		t.Fatal("nothing was raised")
	}
	for i, want := range []float64{1, 6, 1} {
		if got := c.out.Metrics[i].Used; math.Abs(got-want) > 1e-9 {
			t.Errorf("φ of %s is %v, want %v", c.out.Metrics[i].Name, got, want)
		}
	}
	for i := 0; c.raise(runs); i++ {
		if i > 100 {
			t.Fatal("φ is raised without end")
		}
	}
}

func TestBuckets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		bounds []float64
		coarse int
	}{
		{"factor 1.09", fine(), 0},
		{"powers of two", []float64{0.5, 1, 2, 4, 8, 16, 32}, 2},
		{"one that holds both", []float64{0.5, 1, 2, 4, 40}, 1},
		{"too few", []float64{0.5, 1, 2, 4, 10}, 2},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := synth{seed: 2, days: 2, step: time.Minute, rps: 0.5, metrics: []string{"p95_latency"}, bounds: tt.bounds}.history()
			c := &calibration{History: h, rollout: day(t, h.Metrics, "p95_latency_increase < 0.30"), out: &Result{}}
			c.buckets()
			if len(c.out.Buckets) != tt.coarse {
				t.Fatalf("%d coarse buckets, want %d: %+v", len(c.out.Buckets), tt.coarse, c.out.Buckets)
			}
			// With the bounds that are asked for, nothing is coarse.
			bounds := append([]float64(nil), tt.bounds...)
			for _, b := range c.out.Buckets {
				bounds = append(bounds, b.Add...)
			}
			h = synth{seed: 2, days: 2, step: time.Minute, rps: 0.5, metrics: []string{"p95_latency"}, bounds: sorted(bounds)}.history()
			c = &calibration{History: h, rollout: day(t, h.Metrics, "p95_latency_increase < 0.30"), out: &Result{}}
			if c.buckets(); len(c.out.Buckets) != 0 {
				t.Errorf("still coarse after adding: %+v", c.out.Buckets)
			}
		})
	}
}

func sorted(values []float64) []float64 {
	slices.Sort(values)
	return values
}
