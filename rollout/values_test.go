package rollout_test

import (
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	. "github.com/aviary-rollouts/aviary/rollout"
)

func TestWeight(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in   string
		want Weight
		text string
	}{{"0", 0, "0%"}, {"0.05", 500, "5%"}, {"0.0025", 25, "0.25%"}, {"1", FullWeight, "100%"}, {"0.3333", 3333, "33.33%"}} {
		var got Weight
		if err := json.Unmarshal([]byte(tc.in), &got); err != nil || got != tc.want || got.String() != tc.text {
			t.Errorf("%s: got %d (%s), %v", tc.in, got, got, err)
		}
	}
	for _, in := range []string{"1.5", "-0.1", "0.00005", `"5%"`, "null1", "1e400"} {
		var got Weight
		if err := json.Unmarshal([]byte(in), &got); err == nil {
			t.Errorf("%s: accepted as %s", in, got)
		}
	}
	for _, f := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if w, err := WeightFromFraction(f); err == nil {
			t.Errorf("%v: accepted as %s", f, w)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		w := Weight(rapid.IntRange(0, int(FullWeight)).Draw(t, "weight"))
		var back Weight
		if err := json.Unmarshal([]byte(text(t, w)), &back); err != nil || back != w {
			t.Fatalf("%d came back as %d: %v", w, back, err)
		}
	})
}

func TestDuration(t *testing.T) {
	t.Parallel()
	for want, d := range map[string]time.Duration{
		"0s": 0, "10s": 10 * time.Second, "30m": 30 * time.Minute, "10m": 10 * time.Minute, "1h30m": 90 * time.Minute, "24h": 24 * time.Hour,
		"20h": 20 * time.Hour, "1h0m10s": time.Hour + 10*time.Second, "1.5s": 1500 * time.Millisecond, "100ms": 100 * time.Millisecond,
	} {
		if got := Duration(d).String(); got != want {
			t.Errorf("%s is written %q, want %q", d, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := Duration(rapid.Int64().Draw(t, "duration"))
		var back Duration
		if err := json.Unmarshal([]byte(text(t, d)), &back); err != nil || back != d {
			t.Fatalf("%s came back as %s: %v", d, back, err)
		}
	})
	for _, in := range []string{"30", `"30"`, `"a while"`, "{}"} {
		var d Duration
		if err := json.Unmarshal([]byte(in), &d); err == nil {
			t.Errorf("%s: accepted as %s", in, d)
		}
	}
}

func TestValidName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"v42": true, "support-agent": true, "1.2.3": true, "a_b": true, "": false, "-x": false, "V42": false, "a/b": false, "a b": false,
		`x"}`: false, "v42\n": false, string(make([]byte, 64)): false, "a123456789012345678901234567890123456789012345678901234567890123": false,
	} {
		if got := ValidName(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}

func TestCriteriaAsChecks(t *testing.T) {
	t.Parallel()
	limit := func(f float64) *float64 { return &f }
	guard := RollbackCriteria{MaxErrorIncrease: limit(0.1), MaxSafetyViolations: limit(0), MaxLatencyIncrease: limit(1e-7)}
	if diff := cmp.Diff([]string{"safety_violations <= 0", "error_rate_increase <= 0.1", "p95_latency_increase <= 1e-07"}, guard.Checks()); diff != "" {
		t.Error(diff)
	}
	promotion := PromotionCriteria{MaxCompletionRegression: limit(0.02)}
	if diff := cmp.Diff([]string{"task_completion_rate_regression <= 0.02"}, promotion.Checks()); diff != "" {
		t.Error(diff)
	}
	if got := (RollbackCriteria{}).Checks(); got != nil {
		t.Errorf("nothing asked, got %v", got)
	}
}

func TestStatusTells(t *testing.T) {
	t.Parallel()
	s, now := in(t, AwaitingApproval)
	s, _ = Step(s, Asked{SignalPause, Ask{By: "ann", Reason: "lunch"}}, now)
	want := Status{
		Agent: "support-agent", Stable: "v41", Canary: "v42", Phase: AwaitingApproval, Paused: &Pause{By: "ann", Reason: "lunch", Since: now},
		Stage: "initial", StageIndex: 0, Stages: 2, Weight: 500, Started: t0, Observed: Duration(30 * time.Minute), Duration: Duration(30 * time.Minute),
		Requests: Requests{Stable: 1000, Canary: 100}, Verdict: Met, Evidence: passed(0).Evidence, Owner: owner,
		Last: &s.Decisions[len(s.Decisions)-1],
	}
	if diff := cmp.Diff(want, s.Status()); diff != "" {
		t.Error(diff)
	}
	if got := New(Spec{Agent: "a"}, owner, t0).Status(); got.Stage != "" || got.Last != nil || got.Phase != Validating {
		t.Errorf("a rollout that has not begun: %+v", got)
	}
}

func TestFills(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]bool{
		"/x?f={{.From}}": true, "/x?f={{ .From }}&t={{.To}}": true, "/x?f={{- .From -}}": true, "/x?f={{.To}}{{.From}}": true,
		"/x?f={{.Version}}": false, "/x?f=.From}}": false, "/x?f={{.FromNow}}": false, "": false,
	} {
		if got := (Definition{Query: query}).Fills("From"); got != want {
			t.Errorf("%q: %t, want %t", query, got, want)
		}
	}
}
