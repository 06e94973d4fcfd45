package analysis

import "math"

// twoRate bets on p_c > a + b·p_s from the events of two versions, against the null p_c ≤ a + b·p_s; with bets below 0 on p_c < a + b·p_s,
// against the opposite null. Trials have outcomes in [0,1], parts of an event included. With a rate θ_s of stable that was foretold from the
// polls before, θ_c = a + b·θ_s, κ = b·n_c/n_s and a stake λ:
//
//	e = (1+(1−θ_c)λ)^x_c · (1−θ_cλ)^(n_c−x_c) · (1−(1−θ_s)κλ)^x_s · (1+θ_sκλ)^(n_s−x_s)
//
// A canary trial's factor has the expectation 1+(p_c−θ_c)λ at most, since (1+(1−θ)λ)^x·(1−θλ)^(1−x) is convex in x; a stable trial's has
// 1−(p_s−θ_s)κλ. As 1+u ≤ eᵘ, E[e] ≤ exp(n_c·λ·(p_c−a−b·p_s)) ≤ 1 under the null: whatever θ_s is, whatever the split and the pace, and when
// both rates drift. θ_s only decides how much is won. It is a test by betting (Waudby-Smith & Ramdas, "Estimating means of bounded random
// variables by betting", 2024) for two samples, as Turner, Ly & Grünwald's for proportions ("Generic E-variables for exact sequential
// k-sample tests that allow for optional stopping", 2024). At θ_s = 0 and a = 0 it is the conditional binomial test of two Poisson rates: Lindon,
// Sanden & Shirikian, "Rapid Regression Detection in Software Deployments through Sequential Testing" (KDD 2022).
//
// A bet is named by ln ρ, ρ = (p_c/p_s) / (θ_c/θ_s) as it is hoped for. The optimal stake for it is λ = (α−1)/(1−θ_c) with
// α = ρ(1+κ)/(1+ρκ), so α−1 = (ρ−1)/(1+ρκ), short of what could lose everything.
type twoRate struct {
	a, b float64
	// counted is for events that are no outcomes of trials, such as violations: several may fall on a trial. θ is 0 then, and a poll's
	// e = (1+λ)^x_c · (1−κλ)^x_s · exp(−λ·a·n_c), which is exact for Poisson counts.
	counted bool
}

// most is the largest part of the wealth that one trial may take.
const most = 0.999

// draw is one poll's trials, with what all bets on it share.
type draw struct {
	nc, xc, ns, xs float64
	thetaC, thetaS float64
	kappa          float64 // b·n_c/n_s
}

// draw prepares a poll. It reports false where there is no evidence: without canary trials, without stable ones where b > 0, or with a null
// that holds whatever happens.
func (t twoRate) draw(nc, xc, ns, xs, thetaS float64) (draw, bool) {
	s := draw{nc: nc, xc: xc, ns: ns, xs: xs, thetaS: thetaS}
	if !t.counted {
		s.nc, s.ns = max(nc, xc), max(ns, xs) // an event may be counted before its trial
	}
	if s.nc <= 0 || (t.b != 0 && s.ns <= 0) {
		return s, false
	}
	if t.b != 0 {
		s.kappa = t.b * s.nc / s.ns
	}
	if !finite(s.kappa) {
		return s, false
	}
	if t.counted {
		s.thetaS = 0
		return s, true
	}
	s.thetaC = t.a + t.b*thetaS
	return s, s.thetaC >= 0 && s.thetaC < 1
}

// factor is the log of the factor of the bet on ρ, given as ρ−1. Logarithms of 1+u are accurate to 1e-16, which trials don't multiply to
// anything that counts.
func (t twoRate) factor(s *draw, more float64) float64 {
	tilt := more / (1 + s.kappa + more*s.kappa) // α−1
	if t.counted {
		tilt = min(tilt, most/max(s.kappa, 1e-300))
		return s.xc*math.Log(1+tilt) + s.xs*math.Log(1-s.kappa*tilt) - tilt*t.a*s.nc
	}
	stake := tilt / (1 - s.thetaC)
	stableWin, stableLoss := s.kappa*s.thetaS, s.kappa*(1-s.thetaS)
	if stake > 0 {
		stake = min(stake, most/max(s.thetaC, stableLoss))
	} else {
		stake = max(stake, -most/max(1-s.thetaC, stableWin))
	}
	log := (s.nc-s.xc)*math.Log(1-s.thetaC*stake) + (s.ns-s.xs)*math.Log(1+stableWin*stake)
	if s.xc > 0 {
		log += s.xc * math.Log(1+(1-s.thetaC)*stake)
	}
	if s.xs > 0 {
		log += s.xs * math.Log(1-stableLoss*stake)
	}
	return log
}

// The bets against the null, as ln ρ: from a canary 1.05 times beyond its limit to one that does nothing but fail. Wealth lies where regressions are
// likely, 1.2 to 3 times beyond.
var (
	worseBets    = geometric(0.045, 2, 8)
	worseWeights = bell(worseBets, 0.45, 0.9, 0.06)
	worseHopes   = hopes(worseBets...)
)

// hopes are bets ln ρ as ρ−1.
func hopes(bets ...float64) []float64 {
	out := make([]float64, len(bets))
	for g, bet := range bets {
		out[g] = math.Expm1(bet)
	}
	return out
}

// The bets against the opposite null, in multiples of the bet that is optimal for a canary that equals stable. Wealth lies on those near it.
var (
	withinBets    = []float64{0.4, 0.7, 1, 1.6, 2.6}
	withinWeights = logShares([]float64{0.15, 0.25, 0.35, 0.2, 0.05})
)

// The boldest and the most timid bet for a canary that equals stable, as ln ρ.
const (
	boldest   = -4
	mostTimid = -0.02
)

// alike is the optimal bet, as ln ρ, against the opposite null for a canary whose rate would be target: stable's own, as a rule. It is 0, no
// bet, where nothing is known.
func (t twoRate) alike(target, thetaS float64) float64 {
	limit := t.a + t.b*thetaS
	if target <= 0 || limit <= 0 {
		return 0
	}
	return min(mostTimid, max(boldest, math.Log(target/limit)))
}
