package activities

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/rollout"
)

// evidence is the numbers behind a report, for people.
func evidence(report analysis.Report) []rollout.Evidence {
	out := make([]rollout.Evidence, len(report.Findings))
	for i, f := range report.Findings {
		out[i] = rollout.Evidence{
			Check: f.Check, Metric: f.Metric, Role: string(f.Role), Verdict: rollout.Verdict(f.Verdict),
			Stable: rollout.Arm{N: plain(f.StableN), X: plain(f.StableX), Estimate: number(f.StableEstimate)},
			Canary: rollout.Arm{N: plain(f.CanaryN), X: plain(f.CanaryX), Estimate: number(f.CanaryEstimate)},
			Change: number(f.Change), Limit: plain(f.Limit), Allowed: number(f.Allowed), EValue: number(f.EValue),
			Lower: number(f.Lower), Upper: number(f.Upper), Needed: number(f.Needed), Note: f.Note,
		}
	}
	return out
}

// number is v, or nil where there is none: JSON has no NaN and no infinity.
func number(v float64) *float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return nil
	}
	return &v
}

// plain is v, or 0 where there is no number.
func plain(v float64) float64 {
	if n := number(v); n != nil {
		return *n
	}
	return 0
}

// maxEValue is where charts of E-values end.
const maxEValue = 1e12

// charted is an E-value for a chart: 1 without evidence, and never infinite.
func charted(e float64) float64 {
	if math.IsNaN(e) {
		return 1
	}
	return min(max(e, 0), maxEValue)
}

// blamed is the finding that a violation is blamed on.
func blamed(report analysis.Report) (analysis.Finding, bool) {
	for _, is := range []func(analysis.Finding) bool{
		func(f analysis.Finding) bool { return report.Safety && f.Safety },
		func(f analysis.Finding) bool { return f.Check == report.Blame && f.Verdict == analysis.Violated },
		func(f analysis.Finding) bool { return f.Verdict == analysis.Violated },
		func(f analysis.Finding) bool { return f.Check == report.Blame },
	} {
		if i := slices.IndexFunc(report.Findings, is); i >= 0 {
			return report.Findings[i], true
		}
	}
	return analysis.Finding{}, false
}

// sentence says why a report is a violation, such as
// "error_rate_increase < 0.1 violated: 52/1000 against 11/1000 (+373%, at least +100%), with an e-value of all metrics together of 1.2e+04 ≥ 100".
func sentence(report analysis.Report, config analysis.Config) string {
	f, ok := blamed(report)
	if !ok {
		return "the checks together are violated" + combined(report, config)
	}
	var b strings.Builder
	b.WriteString(f.Check + " violated")
	if f.Lately {
		b.WriteString(" lately")
	}
	kind := analysis.Value
	if i := slices.IndexFunc(config.Metrics, func(m analysis.Metric) bool { return m.Name == f.Metric }); i >= 0 {
		kind = config.Metrics[i].Kind
	}
	if canary := arm(kind, f.CanaryN, f.CanaryX, f.CanaryEstimate); canary != "" {
		b.WriteString(": " + canary)
		if stable := arm(kind, f.StableN, f.StableX, f.StableEstimate); stable != "" {
			b.WriteString(" against " + stable)
		}
	}
	if relative(f) {
		fmt.Fprintf(&b, " (%+.0f%%", 100*f.Change)
		if interval := rollout.Interval(number(f.Lower), number(f.Upper)); interval != "" {
			b.WriteString(", " + interval)
		}
		b.WriteString(")")
	}
	if !f.Safety {
		b.WriteString(combined(report, config))
	}
	return b.String()
}

// relative reports whether a finding is of a check on a change that has a number.
func relative(f analysis.Finding) bool {
	left, _, _ := strings.Cut(f.Check, " ")
	return left != f.Metric && number(f.Change) != nil
}

// arm is one version's side: counts where they say most, else the estimate. Empty without data.
func arm(kind analysis.Kind, n, x, estimate float64) string {
	if kind == analysis.Ratio || kind == analysis.Count {
		if n <= 0 && x <= 0 || math.IsNaN(n) || math.IsNaN(x) {
			return ""
		}
		if n <= 0 {
			return fmt.Sprintf("%.10g", x)
		}
		return fmt.Sprintf("%.10g/%.10g", x, n)
	}
	if number(estimate) == nil {
		return ""
	}
	return fmt.Sprintf("%.4g", estimate)
}

func combined(report analysis.Report, config analysis.Config) string {
	if limit := 1 / config.Alpha; config.Method == analysis.Sequential && report.EValue >= limit {
		return fmt.Sprintf(", with an e-value of all metrics together of %.3g ≥ %.4g", report.EValue, limit)
	}
	return ""
}
