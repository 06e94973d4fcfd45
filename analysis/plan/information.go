// Package plan foretells what a rollout can see at a given traffic: how long its stages take, which regressions they catch and rule out, and
// how soon. It is pure: a configuration, stages and rates in, expectations out.
package plan

import "math"

// Information is what one canary request says, on average and in nats, against the null p_c ≤ a + b·p_s, where the canary has events with
// probability pc, stable with ps, both in [0,1], and there are ratio stable requests per canary request, 0 or more, +Inf for a stable rate that is
// known. It is the least divergence of the truth from the null:
//
//	I = min over q of kl(p_c, a+b·q) + ratio·kl(p_s, q),  kl(p, q) = p·ln(p/q) + (1−p)·ln((1−p)/(1−q))
//
// Any test that errs with a chance of at most α and surely detects needs at least ln(1/α)/I canary requests on average: Wald, "Sequential Tests
// of Statistical Hypotheses" (1945), eq. 4.80; for two samples Chernoff, "Sequential Design of Experiments" (1959). It is 0 within the null, and +Inf where a single request refutes it.
// b is 0 or more; with b = 0 the limit a is on the canary alone. NaN for a NaN.
func Information(pc, ps, a, b, ratio float64) float64 {
	if pc <= a+b*ps {
		return 0
	}
	return least(bernoulli, pc, ps, a, b, ratio)
}

// Promotion is what one canary request says against the opposite null, p_c ≥ a + b·p_s, measured as [Information] is: what it takes to show that a
// canary keeps its limit. It is 0 within that null.
func Promotion(pc, ps, a, b, ratio float64) float64 {
	if pc >= a+b*ps {
		return 0
	}
	return least(bernoulli, pc, ps, a, b, ratio)
}

// CountInformation is [Information] of events that are no outcomes of trials, so that several may fall on one: rates of Poisson counts, 0 or more.
// The divergence is p·ln(p/q) − p + q.
func CountInformation(pc, ps, a, b, ratio float64) float64 {
	if pc <= a+b*ps {
		return 0
	}
	return least(poisson, pc, ps, a, b, ratio)
}

// CountPromotion is [Promotion] of Poisson counts.
func CountPromotion(pc, ps, a, b, ratio float64) float64 {
	if pc >= a+b*ps {
		return 0
	}
	return least(poisson, pc, ps, a, b, ratio)
}

// MeanInformation is what one observation of the canary says, in nats, on which side of m_c = a + b·m_s its mean lies: d²/2v with
// d = m_c − a − b·m_s and v = σ_c² + b²·σ_s²/ratio, as for normal observations of known standard deviations σ ≥ 0. It is 0 without a difference, or without a
// stable to compare with, and +Inf without any deviation.
func MeanInformation(mc, ms, sdc, sds, a, b, ratio float64) float64 {
	d := mc - a - b*ms
	if d == 0 || (b != 0 && ratio == 0) {
		return 0
	}
	v := sdc * sdc
	if b != 0 {
		v += b * b * sds * sds / ratio
	}
	return d * d / (2 * v)
}

// divergence is that of one distribution of events of rate p from another of rate q.
type divergence struct {
	of    func(p, q float64) float64
	noise func(p, q float64) float64 // the variance of the log likelihood ratio whose mean is of
	unit  func(q float64) float64    // the derivative of of by q is (q−p)/unit(q)
	most  float64                    // of a rate
}

var (
	bernoulli = divergence{klBernoulli, noiseBernoulli, func(q float64) float64 { return q * (1 - q) }, 1}
	poisson   = divergence{klPoisson, noisePoisson, func(q float64) float64 { return q }, math.Inf(1)}
)

// least is the smallest kl(p_c, a+b·q) + ratio·kl(p_s, q).
func least(d divergence, pc, ps, a, b, ratio float64) float64 {
	if math.IsNaN(pc + ps + a + b + ratio) {
		return math.NaN()
	}
	q := nearest(d, pc, ps, a, b, ratio)
	theta := min(d.most, max(0, a+b*q))
	if q == ps {
		return d.of(pc, theta)
	}
	return d.of(pc, theta) + scaled(ratio, d.of(ps, q))
}

// nearest is the q at which it is the smallest. It is convex in q, and least between stable's own rate and the one at which the limit is the
// canary's rate: where its derivative changes its sign.
func nearest(d divergence, pc, ps, a, b, ratio float64) float64 {
	if b == 0 || math.IsInf(ratio, 1) {
		return ps
	}
	clip := func(x float64) float64 { return min(d.most, max(0, x)) }
	low, high := ps, clip((pc-a)/b)
	if low > high {
		low, high = high, low
	}
	high = min(high, clip((d.most-a)/b))
	ends := [2]float64{low, high}
	for range 200 {
		q := low + (high-low)/2
		if q <= low || q >= high {
			break
		}
		theta := a + b*q
		if b*(theta-pc)*d.unit(q)+ratio*(q-ps)*d.unit(theta) < 0 {
			low = q
		} else {
			high = q
		}
	}
	best, at := math.Inf(1), low
	for _, q := range []float64{low, high, ends[0], ends[1]} {
		if sum := d.of(pc, clip(a+b*q)) + scaled(ratio, d.of(ps, q)); sum < best {
			best, at = sum, q
		}
	}
	return at
}

// scaled is x·y, 0 where one of them is.
func scaled(x, y float64) float64 {
	if x == 0 || y == 0 {
		return 0
	}
	return x * y
}

// klBernoulli is the Kullback–Leibler divergence of an event of probability p from one of probability q, +Inf where q rules out what p allows.
func klBernoulli(p, q float64) float64 { return max(0, surprise(p, q)+surprise(1-p, 1-q)) }

// klPoisson is that of Poisson counts of mean p from those of mean q.
func klPoisson(p, q float64) float64 { return max(0, surprise(p, q)-p+q) }

// noiseBernoulli is the variance of the log likelihood ratio of one event.
func noiseBernoulli(p, q float64) float64 {
	if p <= 0 || p >= 1 {
		return 0
	}
	odds := math.Log(p / q * ((1 - q) / (1 - p)))
	return p * (1 - p) * odds * odds
}

// noisePoisson is that of one count.
func noisePoisson(p, q float64) float64 {
	if p <= 0 {
		return 0
	}
	log := math.Log(p / q)
	return p * log * log
}

// surprise is p·ln(p/q), 0 for p = 0.
func surprise(p, q float64) float64 {
	if p <= 0 {
		return 0
	}
	return p * math.Log(p/q)
}
