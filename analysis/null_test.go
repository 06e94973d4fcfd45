package analysis

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestNullIsWhatIsTested(t *testing.T) {
	t.Parallel()
	near := cmpopts.EquateApprox(0, 1e-12)
	cfg := Config{Method: Sequential, Alpha: 0.01, Beta: 0.05, Advance: AdvanceEstimate, Floor: 0.001, CohortSpread: map[string]float64{"tool_error_rate": 0.1}}
	offset := math.Exp(0.258)
	for _, tt := range []struct {
		check        string
		limit, proof Null
	}{
		{"error_rate_increase < 0.1", Null{A: 0.001, B: 1.1}, Null{A: 0.001, B: 1.1}},
		{"error_rate < 0.02", Null{A: 0.02}, Null{A: 0.02}},
		{"task_completion_drop < 0.05", Null{A: 0.05, B: 0.95, Failures: true}, Null{A: 0.05, B: 0.95, Failures: true}},
		{"task_completion_rate > 0.8", Null{A: 0.2, Failures: true}, Null{A: 0.2, Failures: true}},
		{"safety_violations_increase < 0.5", Null{A: 0.001, B: 1.5, Counted: true}, Null{A: 0.001, B: 1.5, Counted: true}},
		{"p95_latency_increase < 0.3", Null{B: 1, Scale: 1.3}, Null{B: 1, Scale: 1.3}},
		{"p95_latency < 4", Null{A: 0.05, Threshold: 4}, Null{A: 0.05, Threshold: 4}},
		{"cost_per_task_increase < 0.1", Null{B: 1.1}, Null{B: 1.1}},
		{"cost_per_task < 0.05", Null{A: 0.05}, Null{A: 0.05}},
		{"user_satisfaction_drop < 0.05", Null{B: 0.95, AtLeast: true}, Null{B: 0.95, AtLeast: true}},
		// A cohort's offset is allowed for on either side.
		{"tool_error_rate_increase < 0.1", Null{A: 0.001, B: 1.1 * offset}, Null{A: 0.001, B: 1.1 / offset}},
	} {
		t.Run(tt.check, func(t *testing.T) {
			t.Parallel()
			c, err := ParseCheck(tt.check)
			if err != nil {
				t.Fatal(err)
			}
			m, _ := Preset(c.Metric)
			limit, proof, ok := cfg.Null(c, m)
			if diff := cmp.Diff([]Null{tt.limit, tt.proof}, []Null{limit, proof}, near); diff != "" || !ok {
				t.Errorf("tested: %t, limit and proof (-want +got):\n%s", ok, diff)
			}
		})
	}
	for _, text := range []string{"safety_violations == 0", "total_requests >= 100"} {
		c, err := ParseCheck(text)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := Preset(c.Metric)
		if _, _, ok := cfg.Null(c, m); ok {
			t.Errorf("%s is tested, want a rule", text)
		}
	}
}

func TestTestedSharesAlpha(t *testing.T) {
	t.Parallel()
	cfg := Config{Method: Sequential, Alpha: 0.01, Beta: 0.05, Advance: AdvanceEstimate, Metrics: Presets(), Overdispersion: map[string]float64{"error_rate": 3}}
	for i, text := range []string{"error_rate_increase < 0.1", "error_rate < 0.05", "p95_latency_increase < 0.3", "safety_violations == 0", "error_rate_increase < 0.05"} {
		c, err := ParseCheck(text)
		if err != nil {
			t.Fatal(err)
		}
		rc := RoleCheck{Check: c, Role: RoleGuard, Stage: EveryStage}
		if i == 4 {
			rc.Role, rc.Stage = RoleStage, 1
		}
		cfg.Checks = append(cfg.Checks, rc)
	}
	got, err := cfg.Tested()
	if err != nil {
		t.Fatal(err)
	}
	type line struct {
		Check    string
		Share    float64
		Phi      float64
		OnLadder bool
	}
	var lines []line
	for _, c := range got {
		lines = append(lines, line{c.Check.Text, c.Share, c.Phi, c.OnLadder})
	}
	want := []line{
		{"error_rate_increase < 0.1", 0.25, 3, true}, {"error_rate < 0.05", 0.25, 3, false}, {"p95_latency_increase < 0.3", 0.5, 1, true},
		{"error_rate_increase < 0.05", 0.25, 3, true},
	}
	if diff := cmp.Diff(want, lines); diff != "" {
		t.Errorf("tested (-want +got):\n%s", diff)
	}
	cfg.Method = Threshold
	if got, err := cfg.Tested(); err != nil || len(got) != 0 {
		t.Errorf("the raw rule tests %v, %v; want nothing", got, err)
	}
	cfg.Alpha = 2
	if _, err := cfg.Tested(); err == nil {
		t.Error("no error for an alpha of 2")
	}
}

func TestRungIsWhatTheLadderAsksFor(t *testing.T) {
	t.Parallel()
	cfg := Config{Advance: AdvanceLadder, Stages: 3}
	for _, tt := range []struct {
		check  string
		stage  int
		stable float64
		want   float64
		ok     bool
	}{
		{"error_rate_increase < 0.1", 0, 0.01, 1, true},
		{"error_rate_increase < 0.1", 1, 0.01, 0.3, true},
		{"error_rate_increase < 0.1", 2, 0.01, 0, false},
		{"error_rate_increase < 0.5", 1, 0.01, 0.5, true},
		{"task_completion_drop < 0.02", 0, 0.9, 0.1, true}, // twice the failures are a fall by 1/9
		{"task_completion_drop < 0.02", 1, 0.9, 0.03, true},
		{"error_rate < 0.02", 0, 0.01, 0, false},
	} {
		c, err := ParseCheck(tt.check)
		if err != nil {
			t.Fatal(err)
		}
		m, _ := Preset(c.Metric)
		if got, ok := cfg.Rung(c, tt.stage, m, tt.stable); got != tt.want || ok != tt.ok {
			t.Errorf("%s after stage %d: %g, %t; want %g, %t", tt.check, tt.stage, got, ok, tt.want, tt.ok)
		}
	}
	cfg.Advance = AdvanceProof
	c, _ := ParseCheck("error_rate_increase < 0.1")
	if _, ok := cfg.Rung(c, 0, Metric{Name: "error_rate", Kind: Ratio, Better: Lower}, 0.01); ok {
		t.Error("a rung without a ladder")
	}
}
