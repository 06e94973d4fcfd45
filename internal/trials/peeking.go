package trials

import (
	"math"
	"time"

	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// peeking repeats a test at every poll that is meant to be made once: the one-sided z-test of two proportions with a pooled variance, of the
// first limit's metric, from five canary events on.
type peeking struct {
	*window
	critical float64
}

func newPeeking(limits []limit, level float64) *peeking {
	return &peeking{window: newWindow(limits[:1]), critical: distuv.UnitNormal.Quantile(1 - level)}
}

// Poll rolls back when the canary's rate is significantly above stable's.
func (r *peeking) Poll(p analysis.Poll, _ int, _ time.Duration) bool {
	const least = 5
	r.add(p)
	s, c := r.stable[0], r.canary[0]
	if s.N <= 0 || c.X < least {
		return false
	}
	pooled := (s.X + c.X) / (s.N + c.N)
	return (c.X/c.N-s.X/s.N)/math.Sqrt(pooled*(1-pooled)*(1/s.N+1/c.N)) > r.critical
}

// pooledZ is the z-test that the pooled rates are beyond the limit, repeated at every poll, from a thousand canary requests on.
type pooledZ struct {
	*window
	critical float64
}

// Poll rolls back when the canary's rate is significantly above stable's and the limit.
func (r *pooledZ) Poll(p analysis.Poll, _ int, _ time.Duration) bool {
	const least = 1000
	r.add(p)
	s, c, b := r.stable[0], r.canary[0], 1+r.limits[0].worse
	if s.N <= 0 || c.N < least {
		return false
	}
	ps, pc := s.X/s.N, c.X/c.N
	return (pc-b*ps)/math.Sqrt(pc*(1-pc)/c.N+b*b*ps*(1-ps)/s.N) > r.critical
}

// asymptotic is the asymptotic confidence sequence of the relative change of the first limit's metric, as platforms for A/B tests use it:
// Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central limit theory and asymptotic confidence sequences" (2024),
// theorem 2.2, with the variance of a ratio by the delta method and the width tuned for 5,000 requests, as GrowthBook does.
type asymptotic struct {
	*window
	level float64 // one-sided
}

// Poll rolls back when the whole interval is beyond the limit.
func (r *asymptotic) Poll(p analysis.Poll, _ int, _ time.Duration) bool {
	const tuned = 5000
	r.add(p)
	s, c := r.stable[0], r.canary[0]
	if s.N < 5 || c.N < 5 || s.X == 0 {
		return false
	}
	ps, pc := s.X/s.N, c.X/c.N
	variance := pc*(1-pc)/(ps*ps*c.N) + ps*(1-ps)*pc*pc/(ps*ps*ps*ps*s.N)
	level := 2 * r.level
	l := -2 * math.Log(level)
	rho := (l + math.Log(l+1)) / tuned
	n := (s.N + c.N) * rho
	half := math.Sqrt(variance * 2 * (n + 1) / n * math.Log(math.Sqrt(n+1)/level))
	return pc/ps-1-half > r.limits[0].worse
}
