package analysis

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text    string
		want    Check
		wantErr string
	}{
		{text: "error_rate_increase < 0.10", want: Check{Metric: "error_rate", Change: Increase, Op: Below, Limit: 0.1}},
		{text: "safety_violations == 0", want: Check{Metric: "safety_violations", Op: Equal}},
		{text: "task_completion_regression < 0.02", want: Check{Metric: "task_completion_rate", Change: Regression, Op: Below, Limit: 0.02}},
		{text: "task_completion_rate_drop <= 5e-2", want: Check{Metric: "task_completion_rate", Change: Drop, Op: AtMost, Limit: 0.05}},
		{text: "task_completion >= 0.8", want: Check{Metric: "task_completion_rate", Op: AtLeast, Limit: 0.8}},
		{text: "  p95_latency<2.5\t", want: Check{Text: "p95_latency<2.5", Metric: "p95_latency", Op: Below, Limit: 2.5}},
		{text: "total_requests > 100", want: Check{Metric: "total_requests", Op: Above, Limit: 100}},
		{text: "queue_depth >= -5", want: Check{Metric: "queue_depth", Op: AtLeast, Limit: -5}},
		{text: "cost_per_task_decrease >= 0.1", want: Check{Metric: "cost_per_task", Change: Decrease, Op: AtLeast, Limit: 0.1}},
		{text: "error_rate <= -0", want: Check{Metric: "error_rate", Op: AtMost, Limit: 0}},
		{text: "increase < 1", want: Check{Metric: "increase", Op: Below, Limit: 1}},
		{text: "", wantErr: "it is empty, want METRIC"},
		{text: "error_rate", wantErr: "compares nothing"},
		{text: "< 0.1", wantErr: "the metric is missing"},
		{text: "error_rate <", wantErr: "not a limit"},
		{text: "error_rate = 0.1", wantErr: "not one comparison"},
		{text: "error_rate != 0.1", wantErr: "not one comparison"},
		{text: "error_rate => 0.1", wantErr: "not one comparison"},
		{text: "error_rate ≤ 0.1", wantErr: "not one comparison"},
		{text: "error_rate < 0.1 < 0.2", wantErr: "not one comparison"},
		{text: "Error_Rate < 0.1", wantErr: "lower-case letters"},
		{text: "error rate < 0.1", wantErr: "lower-case letters"},
		{text: "9lives < 0.1", wantErr: "lower-case letters"},
		{text: "error_rate < 10%", wantErr: "want a fraction: 0.1"},
		{text: "error_rate < NaN", wantErr: "finite decimal"},
		{text: "error_rate < Inf", wantErr: "finite decimal"},
		{text: "error_rate < 1e999", wantErr: "finite decimal"},
		{text: "error_rate < 0x1p-2", wantErr: "finite decimal"},
		{text: "error_rate < 1_000", wantErr: "finite decimal"},
		{text: "error_rate < 0.1 and 0.2", wantErr: "finite decimal"},
		{text: "error_rate_increase < -0.1", wantErr: "negative limit, want 0 or more; to ask for an improvement"},
		{text: "error_rate_increase == 0.1", wantErr: "equal to a number"},
		{text: "error_rate_increase_drop < 0.1", wantErr: "at most one change"},
		{text: "_increase < 0.1", wantErr: "lower-case letters"},
		{text: strings.Repeat("a", 90) + " < 1", wantErr: "too long"},
		{text: strings.Repeat("a", 900) + " < 1", wantErr: "too long"},
	} {
		t.Run(tt.text[:min(40, len(tt.text))], func(t *testing.T) {
			t.Parallel()
			got, err := ParseCheck(tt.text)
			if !errorIs(err, tt.wantErr) {
				t.Fatalf("error %v, want one with %q", err, tt.wantErr)
			}
			if tt.wantErr == "" && tt.want.Text == "" {
				tt.want.Text = tt.text
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// errorIs reports whether err has the text, or is nil where there is none.
func errorIs(err error, text string) bool {
	if err == nil || text == "" {
		return err == nil && text == ""
	}
	return strings.Contains(err.Error(), text)
}

func TestValidate(t *testing.T) {
	t.Parallel()
	known := append(Presets(), Metric{Name: "queue_depth", Kind: Value}, Metric{Name: "praise", Kind: Count, Better: Higher})
	for _, tt := range []struct{ text, wantErr string }{
		{"error_rate_increase < 0.10", ""},
		{"error_rate_regression <= 0.10", ""},
		{"error_rate_decrease > 0.1", ""},
		{"error_rate == 0", ""},
		{"error_rate <= 1", ""},
		{"task_completion_drop < 0.05", ""},
		{"task_completion_increase >= 0.05", ""},
		{"safety_violations == 0", ""},
		{"safety_violations <= 3", ""},
		{"safety_violations < 1", ""},
		{"safety_violations_increase < 0.5", ""},
		{"p95_latency_increase < 0.30", ""},
		{"total_requests >= 1000", ""},
		{"queue_depth > -4", ""},
		{"queue_depth_increase < 3", ""},
		{"praise >= 3", ""},
		{"errors < 0.1", `"errors" is not a metric of this rollout, want one of total_requests, error_rate`},
		{"error_rate_drop < 0.1", "for being better: for error_rate, lower is better; want error_rate_regression"},
		{"error_rate_increase > 0.1", "asks the canary to be worse"},
		{"task_completion_increase < 0.1", "for being better"},
		{"task_completion_regression > 0.1", "asks the canary to be worse"},
		{"error_rate > 0.1", "asks the canary to be bad"},
		{"task_completion < 0.9", "for being good"},
		{"error_rate <= 5", "beyond a ratio"},
		{"task_completion > 1", "can never be met"},
		{"error_rate < 0", "can never be met"},
		{"safety_violations < 0", "can never be met"},
		{"safety_violations <= -1", "negative limit"},
		{"safety_violations == 2", "to be exact"},
		{"p95_latency == 2", "to be exact"},
		{"task_completion_drop < 1", "more than there is to lose"},
		{"p95_latency_increase < 150", "very large change"},
		{"total_requests <= 5", "limits traffic"},
		{"total_requests_increase < 5", "compares traffic"},
		{"total_requests >= -5", "negative limit"},
		{"queue_depth_regression < 5", "no bad direction"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			c, err := ParseCheck(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Validate(known); !errorIs(err, tt.wantErr) {
				t.Errorf("error %v, want one with %q", err, tt.wantErr)
			}
		})
	}
}

func TestPresetsCanBeChecked(t *testing.T) {
	t.Parallel()
	if err := validateMetrics(Presets()); err != nil {
		t.Error(err)
	}
	for _, m := range Presets() {
		if got, ok := Preset(m.Name); !ok || got != m {
			t.Errorf("preset %s is %v, %t", m.Name, got, ok)
		}
	}
	if _, ok := Preset("nonsense"); ok {
		t.Error("nonsense is a preset")
	}
}

func TestParseCondition(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		text    string
		want    Condition
		wantErr string
	}{
		{text: "stable.error_rate > 0.20", want: Condition{Metric: "error_rate", Op: Above, Limit: 0.2}},
		{text: "canary.task_completion<0.5", want: Condition{Canary: true, Metric: "task_completion_rate", Op: Below, Limit: 0.5}},
		{text: "error_rate > 0.20", wantErr: "does not begin with stable. or canary."},
		{text: "both.error_rate > 0.20", wantErr: "does not begin with stable. or canary."},
		{text: "stable.error_rate_increase > 0.20", wantErr: "is relative"},
		{text: "stable.error_rate == 0.20", wantErr: "to be exact"},
		{text: "stable. > 0.20", wantErr: "the metric is missing"},
	} {
		t.Run(tt.text, func(t *testing.T) {
			t.Parallel()
			got, err := ParseCondition(tt.text)
			if !errorIs(err, tt.wantErr) {
				t.Fatalf("error %v, want one with %q", err, tt.wantErr)
			}
			if tt.wantErr == "" {
				tt.want.Text = tt.text
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// FuzzParseCheck holds that what is read can be written and read again, and that nothing panics.
func FuzzParseCheck(f *testing.F) {
	for _, s := range []string{"error_rate_increase < 0.10", "safety_violations == 0", "a<=-1e-9", "x_drop>=0.5", "", "≤", "p95_latency<2%", "a < 0x1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCheck(text)
		if err != nil {
			if c != (Check{}) || len(err.Error()) > 1000+4*len(text) {
				t.Errorf("%q: a check beside an error: %+v, %v", text, c, err)
			}
			return
		}
		if !finite(c.Limit) || c.Metric == "" || len(c.Metric) > 80 {
			t.Errorf("%q: read as %+v", text, c)
		}
		left := c.Metric
		if c.Change != "" {
			left += "_" + string(c.Change)
		}
		again, err := ParseCheck(left + string(c.Op) + trimFloat(c.Limit))
		again.Text = c.Text
		if err != nil || again != c {
			t.Errorf("%q: %+v is read again as %+v, %v", text, c, again, err)
		}
		if err := c.Validate(Presets()); err == nil {
			if _, err := New(Config{Method: Sequential, Alpha: 0.01, Beta: 0.05, Floor: 0.001, Advance: AdvanceProof, Metrics: Presets(), Checks: []RoleCheck{{Check: c, Role: RoleStage}}}); err != nil {
				t.Errorf("%q is valid, but not for an engine: %v", text, err)
			}
		}
	})
}
