package analysis

import "math"

// meanTest bets on d = sign·(ȳ_c − a − b·ȳ_s) > 0 from a poll's sums, against the null that its expectation is at most 0:
//
//	log e = ψ(λd) − λ²v/2,  ψ(x) = ln(1+x+x²/2) for x ≥ 0 and −ψ(−x) below
//
// after Catoni, "Challenging the empirical mean and empirical variance" (2012), with v = σ_c²/n_c + b²σ_s²/n_s. A bet is named by h, the
// difference that it hopes for in standard deviations σ_c of one observation: λ = h·σ_c/v. It is exact where v bounds the variance, and approximate
// with variances estimated from the polls before, as here.
type meanTest struct{ a, b, sign float64 }

// The bets against the null, as h, and against the opposite one in multiples of the bet that is optimal for a canary that equals stable.
var (
	meanBets    = geometric(0.015, 2, 8)
	meanWeights = bell(meanBets, 0.2, 1.1, 0.06)
)

const (
	mostNoise   = 1.5  // the largest λ·√v
	meanLeast   = 100  // observations whose variance is known before the first bet
	stableTerms = 4    // terms of stable's variance before the first bet
	meanTerms   = 10   // terms of a variance that stands alone
	meanShrinks = 30   // terms by which the canary's variance is drawn towards stable's
	varQuantile = 1.28 // of a normal distribution: variances are taken at the upper end of an interval, with a confidence of 90 %
)

// gap is one poll's difference, with what all bets on it share.
type gap struct {
	d  float64 // sign·(ȳ_c − a − b·ȳ_s)
	v  float64 // its variance, above 0
	sd float64 // of one of the canary's observations, above 0
}

// gap prepares a poll. It reports false where there is no evidence, or too little is known of the variances.
func (t meanTest) gap(stable, canary variance, s, c Counts) (gap, bool) {
	if c.N <= 0 || (t.b != 0 && s.N <= 0) {
		return gap{}, false
	}
	varC, varS, known := t.variances(stable, canary)
	if !known {
		return gap{}, false
	}
	g := gap{d: c.X/c.N - t.a, v: varC / c.N, sd: math.Sqrt(varC)}
	if t.b != 0 {
		g.d -= t.b * s.X / s.N
		g.v += t.b * t.b * varS / s.N
	}
	g.d *= t.sign
	return g, finite(g.d) && finite(g.v) && g.v > 0 && finite(g.sd) && g.sd > 0
}

// factor is the log of one bet's factor, for h of any sign: a negative one bets against the opposite null. Where a poll is so large that its noise
// is far below h, a smaller stake wins more: ψ grows like a logarithm.
func (g gap) factor(h float64) float64 {
	most := mostNoise / math.Sqrt(g.v)
	lambda := min(most, max(-most, h*g.sd/g.v))
	return catoni(lambda*g.d) - lambda*lambda*g.v/2
}

// alike is the optimal bet, as h, against the opposite null for a canary whose mean equals stable's.
func (t meanTest) alike(g gap, mean float64) float64 {
	return t.sign * (mean - t.a - t.b*mean) / g.sd
}

// variances are those of one observation. The canary's is never below stable's, and drawn to it while there is little to go by.
func (t meanTest) variances(stable, canary variance) (varC, varS float64, known bool) {
	if stable.n >= meanLeast && stable.terms >= stableTerms {
		varS = stable.atMost()
		varC = max(varS, (meanShrinks*varS+canary.sum)/(meanShrinks+canary.terms))
		return varC, varS, varC > 0
	}
	if t.b == 0 && canary.n >= meanLeast && canary.terms >= meanTerms {
		varC = canary.atMost()
	}
	return varC, 0, varC > 0
}

// atMost is the upper end of an interval for the variance: of few terms the mean may be far too small, and bets on it too bold. The quantile of
// the chi-square distribution is that of Wilson & Hilferty, "The distribution of chi-square" (1931).
func (v *variance) atMost() float64 {
	k := 2 / (9 * v.terms)
	x := 1 - k - varQuantile*math.Sqrt(k)
	return v.sum / v.terms / (x * x * x)
}

func catoni(x float64) float64 {
	if x < 0 {
		return -math.Log(1 - x + x*x/2)
	}
	return math.Log(1 + x + x*x/2)
}

// variance estimates the variance of one observation from the differences of successive polls' means, so that drift does not count.
type variance struct {
	sum, terms     float64 // of (ȳ_i−ȳ_{i−1})² / (1/n_i+1/n_{i−1})
	lastN, lastAvg float64
	n              float64 // observations
}

func (v *variance) add(n, sum float64) {
	if n <= 0 {
		return
	}
	avg := sum / n
	if v.lastN > 0 {
		d := avg - v.lastAvg
		v.sum += d * d / (1/n + 1/v.lastN)
		v.terms++
	}
	v.lastN, v.lastAvg = n, avg
	v.n += n
}
