package simulate

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/aviary-rollouts/aviary/config"
	"github.com/aviary-rollouts/aviary/internal/world"
	"github.com/aviary-rollouts/aviary/rollout"
)

const week = `
agent: support-agent
stable: v41
canary: v42
rollback_criteria: {max_error_increase: 0.1, max_completion_drop: 0.05, max_latency_increase: 0.5, max_safety_violations: 0}
canary_stages:
  - {name: few, weight: 0.05, duration: 24h, min_requests: 50}
  - {name: some, weight: 0.2, duration: 72h, min_requests: 50}
  - {name: half, weight: 0.5, duration: 72h}
  - {name: all, weight: 1.0}
`

func spec(t testing.TB, text string) rollout.Spec {
	t.Helper()
	s, err := config.Rollout("rollout.yaml", []byte(text), config.Overrides{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func options(t testing.TB, text string, change func(*world.World)) Options {
	t.Helper()
	s := spec(t, text)
	w, err := For(s)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&w)
	}
	return Options{Spec: s, World: w, Seed: 1, Start: time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)}
}

func run(t testing.TB, o Options) Outcome {
	t.Helper()
	out, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func kinds(out Outcome) []rollout.DecisionKind {
	var all []rollout.DecisionKind
	for _, d := range out.Decisions {
		all = append(all, d.Kind)
	}
	return all
}

// A canary like stable is promoted after exactly the time that its stages take, and the same seed gives the same rollout.
func TestAlike(t *testing.T) {
	t.Parallel()
	o := options(t, week, nil)
	out := run(t, o)
	if out.Status.Phase != rollout.Promoted || !out.Ended {
		t.Fatalf("%s: %s", out.Status.Phase, out.Status.Reason)
	}
	if took := out.Status.Ended.Sub(o.Start); took < 168*time.Hour || took > 169*time.Hour {
		t.Errorf("it took %s, want 168h", took)
	}
	if again := run(t, o); !cmp.Equal(out, again) {
		t.Errorf("the same seed gave another rollout: %s", cmp.Diff(out, again))
	}
}

// Errors that double on day 3 are found within hours, and nothing is before.
func TestLateRegression(t *testing.T) {
	t.Parallel()
	onset := 72 * time.Hour
	o := options(t, week, func(w *world.World) {
		w.Regressions = []world.Regression{{Metric: "error_rate", Factor: 2, From: onset}}
	})
	out := run(t, o)
	delay := out.Status.Ended.Sub(o.Start) - onset
	if out.Status.Phase != rollout.RolledBack || delay < 0 || delay > 6*time.Hour {
		t.Errorf("%s %s after the regression, want a rollback within 6h: %s", out.Status.Phase, delay, out.Status.Reason)
	}
	if !strings.Contains(out.Status.Reason, "error_rate_increase") {
		t.Errorf("the reason is %q", out.Status.Reason)
	}
	found := 0.0
	for _, h := range out.Harm {
		if h.Metric == "error_rate" {
			found = h.Excess
		}
	}
	// 2 requests a second, 1 % more of which fail, until the rollback.
	if want := 0.02 * delay.Seconds(); found < want/3-60 || found > 3*want+60 {
		t.Errorf("it cost %.0f errors, want about %.0f", found, want)
	}
}

// An outage of the provider hits both versions: it freezes, and the canary is not blamed.
func TestIncidentOfBoth(t *testing.T) {
	t.Parallel()
	o := options(t, week+"freeze_when: [\"stable.error_rate > 0.20\"]\n", func(w *world.World) {
		w.Incidents = []world.Incident{{Arm: world.Both, Metric: "error_rate", Factor: 40, From: 30 * time.Hour, To: 32 * time.Hour}}
	})
	out := run(t, o)
	if out.Status.Phase != rollout.Promoted {
		t.Errorf("%s: %s", out.Status.Phase, out.Status.Reason)
	}
	for _, kind := range []rollout.DecisionKind{rollout.DecideFreeze, rollout.DecideThaw} {
		if !slices.Contains(kinds(out), kind) {
			t.Errorf("decisions %v, want a %s", kinds(out), kind)
		}
	}
}

// One safety violation is enough, and it costs no more than it takes to see it.
func TestSafetyViolation(t *testing.T) {
	t.Parallel()
	sc := Scenario{RPS: 10, Regressions: []string{"safety_violations=0.0005@30h"}}
	o, err := sc.Options(spec(t, week))
	if err != nil {
		t.Fatal(err)
	}
	o.Seed, o.Start = 3, time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)
	out := run(t, o)
	if delay := out.Status.Ended.Sub(o.Start) - 30*time.Hour; out.Status.Phase != rollout.RolledBack || delay < 0 || delay > 3*time.Hour {
		t.Errorf("%s %s after the first chance of one: %s", out.Status.Phase, delay, out.Status.Reason)
	}
}

const short = `
agent: support-agent
stable: v41
canary: v42
canary_stages:
  - {name: few, weight: 0.05, duration: 30m, approval: required}
  - {name: all, weight: 1.0}
`

// A human approves after a while, or nobody does and the simulation says what it waits for.
func TestHumans(t *testing.T) {
	t.Parallel()
	o := options(t, short, nil)
	o.Approve = 20 * time.Minute
	if out := run(t, o); out.Status.Phase != rollout.Promoted || out.Status.Ended.Sub(o.Start) < 50*time.Minute {
		t.Errorf("%s after %s, want a promotion 20m after the stage", out.Status.Phase, out.Status.Ended.Sub(o.Start))
	}
	o.Approve = -1
	if out := run(t, o); out.Ended || out.Status.Phase != rollout.AwaitingApproval || len(out.Decisions) == 0 {
		t.Errorf("%s, ended %t, want it to wait for an approval", out.Status.Phase, out.Ended)
	}
	o.Signals = []Signal{{Signal: rollout.SignalPause, At: 5 * time.Minute}}
	if out := run(t, o); out.Ended || out.Status.Paused == nil {
		t.Errorf("%s, ended %t, want it to stay paused", out.Status.Phase, out.Ended)
	}
	o.Signals = append(o.Signals, Signal{Signal: rollout.SignalAbort, At: 3 * time.Hour})
	if out := run(t, o); out.Status.Phase != rollout.Aborted || out.Status.Ended.Sub(o.Start).Round(time.Minute) != 3*time.Hour {
		t.Errorf("%s after %s, want it aborted after 3h", out.Status.Phase, out.Status.Ended.Sub(o.Start))
	}
}

// A stage that waits for more requests than come is held, and then waits for a human.
func TestTotalRequests(t *testing.T) {
	t.Parallel()
	const file = `
agent: support-agent
stable: v41
canary: v42
canary_stages:
  - {name: few, weight: 0.05, duration: 10m, max_hold: 1h, checks: ["total_requests >= 1000000"]}
  - {name: all, weight: 1.0}
`
	out := run(t, options(t, file, nil))
	if out.Ended || out.Status.Paused == nil || !slices.Contains(kinds(out), rollout.DecideHold) {
		t.Errorf("%s, ended %t, decisions %v, want it held and then paused", out.Status.Phase, out.Ended, kinds(out))
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, options(t, week, nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want context.Canceled", err)
	}
}

func TestScenario(t *testing.T) {
	t.Parallel()
	o, err := Scenario{
		RPS: 20, Diurnal: 0.5, Bases: []string{"error_rate=0.02"},
		Regressions: []string{"error_rate=2x@day3", "p95_latency=+50%", "task_completion=0.8@90m", "safety_violations=0.001@6h"},
		Incidents:   []string{"both", "canary:error_rate=3x@day1+30m", "stable:p95_latency=2x@2d"},
		Signals:     []string{"pause@2h", "resume@day1"},
	}.Options(spec(t, week))
	if err != nil {
		t.Fatal(err)
	}
	want := []world.Regression{
		{Metric: "error_rate", Factor: 2, From: 72 * time.Hour}, {Metric: "p95_latency", Factor: 1.5},
		{Metric: "task_completion_rate", Factor: 2, From: 90 * time.Minute}, {Metric: "safety_violations", Factor: outOfNothing, From: 6 * time.Hour},
	}
	near := cmpopts.EquateApprox(1e-9, 0)
	if diff := cmp.Diff(want, o.World.Regressions, near); diff != "" {
		t.Error(diff)
	}
	incidents := []world.Incident{
		{Arm: world.Both, Metric: "error_rate", Factor: incidentFactor, From: 42 * time.Hour, To: 44 * time.Hour},
		{Arm: world.Canary, Metric: "error_rate", Factor: 3, From: 24 * time.Hour, To: 24*time.Hour + 30*time.Minute},
		{Arm: world.Stable, Metric: "p95_latency", Factor: 2, From: 48 * time.Hour, To: 50 * time.Hour},
	}
	if diff := cmp.Diff(incidents, o.World.Incidents, near); diff != "" {
		t.Error(diff)
	}
	signals := []Signal{{Signal: rollout.SignalPause, At: 2 * time.Hour}, {Signal: rollout.SignalResume, At: 24 * time.Hour}}
	if diff := cmp.Diff(signals, o.Signals); diff != "" {
		t.Error(diff)
	}
	if o.World.RPS != 20 || o.World.Diurnal != 0.5 || o.World.Metric("error_rate").Base != 0.02 {
		t.Errorf("the world is %+v", o.World)
	}
}

// TestChanges: percent and plain numbers are of the metric as it is written in checks; factors are of what is bad of it.
func TestChanges(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]float64{
		"error_rate=2x": 2, "error_rate=0.02": 2, "error_rate=+100%": 2, "error_rate=-50%": 0.5,
		"task_completion_rate=2x": 2, "task_completion_rate=0.8": 2, "task_completion_rate=-10%": 1.9, "task_completion_rate=+5%": 0.55,
		"p95_latency=2x": 2, "p95_latency=+50%": 1.5,
	} {
		o, err := Scenario{RPS: 10, Regressions: []string{text}}.Options(spec(t, week))
		if err != nil || len(o.World.Regressions) != 1 || math.Abs(o.World.Regressions[0].Factor-want) > 1e-9 {
			t.Errorf("%s: %+v, %v; want a factor of %v", text, o.World.Regressions, err, want)
		}
	}
	// A quantile's base and number are the quantile itself, as in plan.
	o, err := Scenario{RPS: 10, Bases: []string{"p95_latency=10"}, Regressions: []string{"p95_latency=25"}}.Options(spec(t, week))
	if err != nil {
		t.Fatal(err)
	}
	m := o.World.Metric("p95_latency")
	if q := QuantileOf(*m); math.Abs(q-10) > 1e-9 || math.Abs(m.Base-10/math.Exp(0.8*1.6448536)) > 1e-6 || math.Abs(o.World.Regressions[0].Factor-2.5) > 1e-9 {
		t.Errorf("a 95th percentile of %v from a median of %v, times %v", q, m.Base, o.World.Regressions[0].Factor)
	}
	// Something out of nothing, whichever way is up.
	for _, sc := range []Scenario{
		{Bases: []string{"error_rate=0"}, Regressions: []string{"error_rate=0.05"}},
		{Bases: []string{"task_completion_rate=1"}, Regressions: []string{"task_completion_rate=0.95"}},
	} {
		sc.RPS = 10
		o, err := sc.Options(spec(t, week))
		if err != nil || o.World.Regressions[0].Factor != outOfNothing {
			t.Errorf("%v: %+v, %v", sc.Regressions, o.World.Regressions, err)
		}
	}
	o, err = Scenario{RPS: 10, Bases: []string{"task_completion_rate=0"}, Regressions: []string{"task_completion_rate=0.5"}}.Options(spec(t, week))
	if err != nil || o.World.Metric("task_completion_rate").Base != 0 || o.World.Regressions[0].Factor != 0.5 {
		t.Errorf("half of what always fails: %+v, %v", o.World.Regressions, err)
	}
}

func TestScenarioRefuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name string
		sc   Scenario
		want []string
	}{
		{"all at once", Scenario{RPS: -1, Diurnal: 2, Bases: []string{"x=1"}}, []string{"--rps -1", "--diurnal 2", `--base "x" is no metric`}},
		{"no number", Scenario{RPS: 10, Bases: []string{"error_rate=NaN"}}, []string{"want METRIC=NUMBER"}},
		{"no share", Scenario{Bases: []string{"error_rate=2"}}, []string{"want 0 to 1"}},
		{"no metric", Scenario{Regressions: []string{"errors=2x"}}, []string{"want one of error_rate, p95_latency, safety_violations, task_completion_rate"}},
		{"no change", Scenario{Regressions: []string{"error_rate=twice"}}, []string{`"twice" is no change, want 2x`}},
		{"no equals sign", Scenario{Regressions: []string{"error_rate"}}, []string{"want METRIC=CHANGE"}},
		{"a factor of nothing", Scenario{Regressions: []string{"safety_violations=2x"}}, []string{"a factor of nothing is nothing", "safety_violations=0.01"}},
		{"a share of nothing", Scenario{Regressions: []string{"safety_violations=+50%"}}, []string{"a factor of nothing is nothing"}},
		{"failures of a perfect agent", Scenario{Bases: []string{"task_completion_rate=1"}, Regressions: []string{"task_completion_rate=2x"}}, []string{"task_completion_rate=0.99"}},
		{"a forgotten x", Scenario{Regressions: []string{"error_rate=2"}}, []string{"is a share, want 0 to 1, or a factor such as 2x"}},
		{"two numbers", Scenario{Regressions: []string{"error_rate=0.02@1h", "error_rate=0.05@2h"}}, []string{"there is a number for error_rate already"}},
		{"below nothing", Scenario{Regressions: []string{"error_rate=-200%"}}, []string{"below nothing"}},
		{"no time", Scenario{Regressions: []string{"error_rate=2x@tomorrow"}}, []string{"want day3, 36h or 90m"}},
		{"no day", Scenario{Regressions: []string{"error_rate=2x@dayx"}}, []string{"want day0 to day366"}},
		{"no arm", Scenario{Incidents: []string{"all"}}, []string{"ARM is both, stable or canary"}},
		{"no signal", Scenario{Signals: []string{"stop@1h"}}, []string{"pause resume abort"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := tt.sc.Options(spec(t, week))
			for _, want := range tt.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v, want one with %q", err, want)
				}
			}
		})
	}
}

// A metric of the file's own gets a base by its kind.
func TestWorldOfDefinitions(t *testing.T) {
	t.Parallel()
	w, err := For(spec(t, short+`
metrics:
  provider: prometheus
  definitions:
    resolved: {kind: ratio, better: higher, events: 'resolved_total', trials: 'tickets_total'}
    depth: {kind: value, better: lower, query: 'max(depth)'}
rollback_criteria: {max_safety_violations: 0}
promotion_criteria: {max_error_increase: 0.2}
freeze_when: ["stable.resolved < 0.1", "stable.depth > 50"]
`))
	if err != nil {
		t.Fatal(err)
	}
	if m := w.Metric("resolved"); m == nil || m.Base != 0.98 {
		t.Errorf("resolved is %+v", m)
	}
	if m := w.Metric("depth"); m == nil || m.Base != 1 {
		t.Errorf("depth is %+v", m)
	}
}

// Changes of the weight cut a stretch of time.
func TestSpells(t *testing.T) {
	t.Parallel()
	at := func(minutes int) time.Time { return time.Unix(0, 0).Add(time.Duration(minutes) * time.Minute) }
	p := &plane{moves: []move{{at(10), 500, 0}, {at(20), 2500, 0}, {at(40), 0, 1000}}}
	for _, tt := range []struct {
		from, to int
		want     []spell
	}{
		{0, 5, []spell{{at(0), at(5), 0, 0}}},
		{5, 15, []spell{{at(5), at(10), 0, 0}, {at(10), at(15), 500, 0}}},
		{10, 20, []spell{{at(10), at(20), 500, 0}}},
		{15, 50, []spell{{at(15), at(20), 500, 0}, {at(20), at(40), 2500, 0}, {at(40), at(50), 0, 1000}}},
		{45, 45, []spell{{at(45), at(45), 0, 1000}}},
	} {
		if diff := cmp.Diff(tt.want, p.spells(at(tt.from), at(tt.to)), cmp.AllowUnexported(spell{})); diff != "" {
			t.Errorf("%d to %d: %s", tt.from, tt.to, diff)
		}
	}
}

// A week of polls every ten seconds.
func BenchmarkWeek(b *testing.B) {
	o := options(b, week, nil)
	for b.Loop() {
		run(b, o)
	}
}
