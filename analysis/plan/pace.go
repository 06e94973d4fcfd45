package plan

import (
	"math"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// pace is how fast the evidence of the best bet grows: mean and variance, per canary request, of the log of its wealth.
type pace struct{ mean, variance float64 }

func (p pace) times(n float64) pace { return pace{p.mean * n, p.variance * n} }

// over is the pace of bets on a variance that is taken for so many times what it is: smaller ones, at better odds than thought.
func (p pace) over(doubt float64) pace { return pace{p.mean / doubt, p.variance / (doubt * doubt)} }

func (p pace) plus(q pace) pace { return pace{p.mean + q.mean, p.variance + q.variance} }

// subject is a metric with what stable does.
type subject struct {
	analysis.Metric
	Base
	phi float64
}

// against is the pace of the evidence against a limit where the canary is factor times worse, with ratio stable requests per canary request, and how
// many times beyond the limit its rate is, at least 1.
func (s subject) against(n analysis.Null, factor, ratio float64) (p pace, beyond float64) {
	if s.Kind == analysis.Mean {
		mean := s.Value * factor
		if n.AtLeast {
			mean = s.Value / factor
		}
		d := mean - n.A - n.B*s.Value
		if n.AtLeast == (d > 0) {
			return pace{}, 1
		}
		return s.meanPace(n, mean, ratio), 1
	}
	if s.coarse(n) { // the bucket that the threshold cuts counts for the canary
		n.Scale *= 1 + s.Width
	}
	pc, ps := s.rates(n, factor)
	if pc <= n.A+n.B*ps {
		return pace{}, 1
	}
	return s.ratePace(n, pc, ps, ratio)
}

// forProof is the pace of the evidence against the opposite of a limit where the canary equals stable. Of a quantile, the buckets that its thresholds
// cut count against the canary: half of each, on average.
func (s subject) forProof(n analysis.Null, ratio float64) pace {
	if s.Kind == analysis.Mean {
		d := s.Value - n.A - n.B*s.Value
		if n.AtLeast == (d < 0) {
			return pace{}
		}
		return s.meanPace(n, s.Value, ratio)
	}
	if n.Scale > 0 {
		n.Scale /= 1 + s.Width
	}
	pc, ps := s.rates(n, 1)
	if pc >= n.A+n.B*ps {
		return pace{}
	}
	p, _ := s.ratePace(n, pc, ps, ratio)
	return p
}

// coarse reports whether the buckets are too wide to interpolate in, measured as the engine does.
func (s subject) coarse(n analysis.Null) bool {
	return n.Scale > 0 && s.Width > 0.4*math.Abs(n.Scale-1)
}

// rates are the canary's and stable's in the terms of a limit: of events, failures, or observations beyond its threshold.
func (s subject) rates(n analysis.Null, factor float64) (canary, stable float64) {
	switch {
	case s.Kind == analysis.Quantile && n.Scale > 0:
		return s.beyond(n.Scale/factor, n.Failures), s.beyond(1, n.Failures)
	case s.Kind == analysis.Quantile:
		return s.beyond(n.Threshold/(s.Value*factor), n.Failures), s.beyond(n.Threshold/s.Value, n.Failures)
	case n.Counted:
		return s.Value * factor, s.Value
	}
	// A ratio becomes factor times worse in what is bad about it, whichever side the limit is on.
	bad := s.Value
	if s.Better == analysis.Higher {
		bad = 1 - s.Value
	}
	worse := min(1, bad*factor)
	if n.Failures == (s.Better == analysis.Higher) {
		return worse, bad
	}
	return 1 - worse, 1 - bad
}

// beyond is the share of stable's observations above so many times its quantile, or below it: those of a lognormal distribution. Where low values are
// bad the canary's are smaller by the factor.
func (s subject) beyond(times float64, below bool) float64 {
	z := distuv.UnitNormal.Quantile(s.Quantile)
	at := z + math.Log(times)/s.Spread
	if below {
		return distuv.UnitNormal.CDF(at)
	}
	return distuv.UnitNormal.Survival(at)
}

// mostRatio is how far beyond its limit the boldest bet hopes for a canary to be. Events that the limit rules out altogether are worth no more.
const mostRatio = 300

// ratePace is the pace at two rates: that of the likelihood ratio of the truth and the nearest point of the null, over φ; and the canary's rate there
// over that at the null.
func (s subject) ratePace(n analysis.Null, pc, ps, ratio float64) (p pace, beyond float64) {
	d := bernoulli
	if n.Counted {
		d = poisson
	}
	q := nearest(d, pc, ps, n.A, n.B, ratio)
	theta := max(n.A+n.B*q, pc/mostRatio)
	p = pace{mean: d.of(pc, theta), variance: d.noise(pc, theta)}
	if n.B != 0 {
		p.mean += scaled(ratio, d.of(ps, q))
		p.variance += scaled(ratio, d.noise(ps, q))
	}
	return s.perRequest(p), max(1, pc/theta)
}

// lowest is how far below the mean the worst observations of what should be high are, in standard deviations: those of ratings from 1 to 5 around 4.
const lowest = 2.6

// meanPace is that of normal means. Amounts spread as they grow. What should be high falls because some observations are the worst there are. The
// engine never takes the canary's spread for smaller than stable's.
func (s subject) meanPace(n analysis.Null, mean, ratio float64) pace {
	sd := math.Abs(s.Value) * s.Spread
	varC := sd * sd
	if n.AtLeast {
		depth := lowest * sd
		if share := min(1, (s.Value-mean)/depth); share > 0 {
			varC = max(varC, (1-share)*(varC+share*depth*depth))
		}
	} else if s.Value != 0 {
		varC *= max(1, mean/s.Value*mean/s.Value)
	}
	mean = MeanInformation(mean, s.Value, math.Sqrt(varC), sd, n.A, n.B, ratio)
	return s.perRequest(pace{mean, 2 * mean})
}

// perRequest is the pace per request where one per trial is given.
func (s subject) perRequest(p pace) pace { return p.times(s.share() / s.phi) }

// reached is the chance that evidence which has grown so much, on average, has ever been at a level above 0: that a Brownian motion with
// drift has crossed it (the inverse Gaussian distribution; Siegmund, "Sequential Analysis", 1985, eq. 3.15).
func reached(grown pace, level float64) float64 {
	if grown.mean <= 0 || level <= 0 {
		if level <= 0 {
			return 1
		}
		return 0
	}
	sd := math.Sqrt(grown.variance)
	if sd == 0 {
		if grown.mean >= level {
			return 1
		}
		return 0
	}
	up, down := (grown.mean-level)/sd, (grown.mean+level)/sd
	// exp(2·level·mean/variance)·Φ(−down) = φ(up)·Φ(−down)/φ(down)
	return min(1, distuv.UnitNormal.CDF(up)+distuv.UnitNormal.Prob(up)*mills(down))
}

// mills is Φ(−x)/φ(x) for x ≥ 0, by its asymptotic series where both are tiny.
func mills(x float64) float64 {
	if x > 12 {
		y := 1 / (x * x)
		return (1 - y + 3*y*y) / x
	}
	return distuv.UnitNormal.Survival(x) / distuv.UnitNormal.Prob(x)
}
