package calibration

import (
	"math"
	"slices"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// verdicts is what the analysis made of one pseudo-rollout.
type verdicts struct {
	most      float64            // the largest combined e-value
	byMetric  map[string]float64 // the largest e-value of each
	takenBack bool               // it would have been rolled back
	at        time.Duration      // then
	changes   map[asked]float64  // at the end of each stage, how much worse the canary seemed
	beyond    map[asked]bool     // and whether that was beyond the limit
}

// asked is a check in a stage.
type asked struct {
	stage int
	check string
}

// judge replays one pseudo-rollout through an engine. With stop it ends when the canary is taken back.
func (r *run) judge(cfg analysis.Config, stop bool) (verdicts, error) {
	v := verdicts{byMetric: map[string]float64{}, changes: map[asked]float64{}, beyond: map[asked]bool{}}
	engine, err := analysis.New(cfg)
	if err != nil {
		return v, err
	}
	r.play(func(stage int) { engine.BeginStage(stage, r.stages[stage].Weight) },
		func(p analysis.Poll, stage int, last bool, at time.Duration) bool {
			engine.Observe(p)
			report := engine.Peek(stage, r.stages[stage].MinRequests)
			v.look(report)
			if last {
				v.end(report, stage, cfg)
			}
			if !v.takenBack && (report.Verdict == analysis.Violated || last && report.Gate == analysis.Violated) {
				v.takenBack, v.at = true, at
			}
			return v.takenBack && stop
		})
	return v, nil
}

// look keeps the largest e-values.
func (v *verdicts) look(report analysis.Report) {
	if report.EValue > v.most {
		v.most = report.EValue
	}
	for _, f := range report.Findings {
		if f.EValue > v.byMetric[f.Metric] {
			v.byMetric[f.Metric] = f.EValue
		}
	}
}

// end keeps what the estimates were when the stage would have been passed.
func (v *verdicts) end(report analysis.Report, stage int, cfg analysis.Config) {
	for _, f := range report.Findings {
		c, err := analysis.ParseCheck(f.Check)
		if err != nil || c.Change == "" || (c.Op != analysis.Below && c.Op != analysis.AtMost) || f.CanaryN <= 0 || math.IsNaN(f.Change) {
			continue
		}
		key := asked{stage, f.Check}
		v.changes[key] = f.Change
		v.beyond[key] = f.Change > f.Limit && f.CanaryEstimate > slack(f, cfg)
	}
}

// slack is up to which value a canary is within a limit whatever the change: of shares that should be low, the floor is allowed in absolute
// terms, as in the rollout.
func slack(f analysis.Finding, cfg analysis.Config) float64 {
	i := slices.IndexFunc(cfg.Metrics, func(m analysis.Metric) bool { return m.Name == f.Metric })
	m := cfg.Metrics[i]
	if (m.Kind != analysis.Ratio && m.Kind != analysis.Count) || m.Better == analysis.Higher {
		return math.Inf(-1)
	}
	return cfg.Floor + (1+f.Limit)*f.StableEstimate
}

// replayAll judges n pseudo-rollouts.
func (p *player) replayAll(cfg analysis.Config, n int, worse *worsening, stop bool) ([]verdicts, error) {
	out := make([]verdicts, n)
	errs := make([]error, n)
	parallel(n, func(i int) { out[i], errs[i] = p.start(i, worse).judge(cfg, stop) })
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// share is how many of the values reach a limit, in [0,1].
func share(values []float64, limit float64) float64 {
	n := 0
	for _, v := range values {
		if v >= limit {
			n++
		}
	}
	return float64(n) / float64(max(1, len(values)))
}

// upperQuantile is the q-quantile of values, NaN without any; it sorts them.
func upperQuantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	slices.Sort(values)
	return values[min(len(values)-1, int(math.Ceil(q*float64(len(values))))-1)]
}
