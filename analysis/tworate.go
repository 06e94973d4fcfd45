package analysis

import "math"

// twoRate bets on p_c > a + b·p_s from the events of two versions, against the null p_c ≤ a + b·p_s. Outcomes lie in [0,1], parts of
// an event included. For a bet ρ, with κ = b·n_c/n_s, α = ρ(1+κ)/(1+ρκ) and β = (1+κ)/(1+ρκ):
//
//	log e = x_c·ln α + x_s·ln β − (α−1)·a·n_c
//
// Since E[α^X] ≤ exp(m(α−1)) for X in [0,1] with mean m, and β = 1−κ(α−1), the stable rate cancels and E[e] ≤ 1, whatever the split, the
// pace and a drift that both share. At a=0 and equality it is the conditional binomial test of two Poisson rates: Lindon, Sanden &
// Shirikian, "Rapid Regression Detection in Software Deployments through Sequential Testing" (KDD 2022). With b=0 there is one
// sample: α=ρ, β=1, and stable is not needed. Bets below ρ=1 test the opposite null, p_c ≥ a + b·p_s.
type twoRate struct {
	a, b float64
	bets []float64 // ln ρ
	rho  []float64
}

// The bets as ln ρ: those above 0 look for a canary beyond its limit, those below for one within it.
var (
	worseBets  = geometric(0.05, 1.6, 11)
	withinBets = geometric(-0.04, 1.55, 10)
)

func newTwoRate(a, b float64, bets []float64) twoRate {
	t := twoRate{a: a, b: b, bets: bets, rho: make([]float64, len(bets))}
	for g, bet := range bets {
		t.rho[g] = math.Exp(bet)
	}
	return t
}

// factors writes the logs of one poll's factors to logE, one per bet, and reports whether there was any evidence: there is none
// without canary trials, nor without stable ones where b > 0.
func (t twoRate) factors(nc, xc, ns, xs float64, logE []float64) bool {
	if nc <= 0 || (t.b != 0 && ns <= 0) {
		return false
	}
	kappa := 0.0
	if t.b != 0 {
		kappa = t.b * nc / ns
	}
	log := math.Log1p(kappa)
	for g, bet := range t.bets {
		logBeta := log - math.Log1p(t.rho[g]*kappa)
		logAlpha := bet + logBeta
		le := xc*logAlpha + xs*logBeta
		if t.a != 0 {
			le -= math.Expm1(logAlpha) * t.a * nc
		}
		logE[g] = le
	}
	return true
}

// growth is by how much the best bet's log wealth grows per canary trial at the rates seen, or 0 if none grows.
func (t twoRate) growth(nc, xc, ns, xs float64) float64 {
	logE := make([]float64, len(t.bets))
	if !t.factors(nc, xc, ns, xs, logE) {
		return 0
	}
	best := 0.0
	for _, le := range logE {
		best = max(best, le/nc)
	}
	return best
}
