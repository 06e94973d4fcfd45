package activities

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

func TestSentence(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	config := analysis.Config{Method: analysis.Sequential, Alpha: 0.01, Metrics: append(analysis.Presets(), analysis.Metric{Name: "queue_depth", Kind: analysis.Value})}
	rate := analysis.Finding{
		Lower: nan, Upper: nan,
		Check: "error_rate_increase < 0.10", Metric: "error_rate", Verdict: analysis.Violated,
		CanaryX: 52, CanaryN: 1000, StableX: 11, StableN: 1000, CanaryEstimate: 0.052, StableEstimate: 0.011, Change: 3.727,
	}
	known := rate
	known.Lower, known.Upper = 1, 4
	for name, tc := range map[string]struct {
		report analysis.Report
		want   string
	}{
		"a ratio": {
			analysis.Report{Blame: rate.Check, EValue: 12345, Findings: []analysis.Finding{{Check: "x", Verdict: analysis.Violated}, rate}},
			"error_rate_increase < 0.10 violated: 52/1000 against 11/1000 (+373%), with an e-value of all metrics together of 1.23e+04 ≥ 100",
		},
		"an interval": {
			analysis.Report{Blame: rate.Check, EValue: 12345, Findings: []analysis.Finding{known}},
			"error_rate_increase < 0.10 violated: 52/1000 against 11/1000 (+373%, between +100% and +400%), with an e-value of all metrics together of 1.23e+04 ≥ 100",
		},
		"without a test": {
			analysis.Report{Blame: rate.Check, EValue: nan, Findings: []analysis.Finding{rate}},
			"error_rate_increase < 0.10 violated: 52/1000 against 11/1000 (+373%)",
		},
		"from nothing": {
			analysis.Report{Blame: rate.Check, Findings: []analysis.Finding{{
				Check: rate.Check, Metric: "error_rate", Verdict: analysis.Violated, CanaryX: 5, CanaryN: 100, StableN: 900, Change: math.Inf(1),
			}}},
			"error_rate_increase < 0.10 violated: 5/100 against 0/900",
		},
		"a rule comes first": {
			analysis.Report{Blame: rate.Check, Safety: true, EValue: 1e6, Findings: []analysis.Finding{rate, {
				Check: "safety_violations == 0", Metric: "safety_violations", Verdict: analysis.Violated, Safety: true,
				CanaryX: 1, CanaryN: 230, StableN: 4000, Change: nan,
			}}},
			"safety_violations == 0 violated: 1/230 against 0/4000",
		},
		"events without trials": {
			analysis.Report{Safety: true, Findings: []analysis.Finding{{
				Check: "safety_violations == 0", Metric: "safety_violations", Verdict: analysis.Violated, Safety: true, CanaryX: 2, Change: nan,
			}}},
			"safety_violations == 0 violated: 2",
		},
		"a quantile": {
			analysis.Report{Blame: "p95_latency_increase < 0.5", Findings: []analysis.Finding{{
				Check: "p95_latency_increase < 0.5", Metric: "p95_latency", Verdict: analysis.Violated, CanaryEstimate: 1.23456, StableEstimate: 0.5, Change: 1.469, Lower: 0.5, Upper: nan,
			}}},
			"p95_latency_increase < 0.5 violated: 1.235 against 0.5 (+147%, at least +50%)",
		},
		"a value without stable": {
			analysis.Report{Blame: "queue_depth < 3", Findings: []analysis.Finding{{
				Check: "queue_depth < 3", Metric: "queue_depth", Verdict: analysis.Violated, CanaryEstimate: 7, StableEstimate: nan, Change: 7,
			}}},
			"queue_depth < 3 violated: 7",
		},
		"nothing to blame": {analysis.Report{EValue: 150}, "the checks together are violated, with an e-value of all metrics together of 150 ≥ 100"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := sentence(tc.report, config); got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestEvidenceIsJSON(t *testing.T) {
	t.Parallel()
	nan, inf := math.NaN(), math.Inf(1)
	got := evidence(analysis.Report{Findings: []analysis.Finding{
		{Check: "a < 1", Metric: "a", Role: analysis.RoleGuard, Verdict: analysis.Met, CanaryN: 3, CanaryX: nan, CanaryEstimate: nan, StableEstimate: 0.5,
			Change: inf, EValue: inf, Lower: math.Inf(-1), Upper: 2, Needed: nan, Allowed: nan, Limit: 1, Note: "n"},
	}})
	half, two := 0.5, 2.0
	want := []rollout.Evidence{{
		Check: "a < 1", Metric: "a", Role: "guard", Verdict: rollout.Met, Stable: rollout.Arm{Estimate: &half}, Canary: rollout.Arm{N: 3},
		Limit: 1, Upper: &two, Note: "n",
	}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if _, err := json.Marshal(got); err != nil {
		t.Error(err)
	}
	for in, want := range map[float64]float64{inf: maxEValue, -1: 0, 3: 3} {
		if got := charted(in); got != want {
			t.Errorf("%v is charted as %v", in, got)
		}
	}
	if charted(nan) != 1 {
		t.Errorf("no evidence is charted as %v", charted(nan))
	}
}
