package analysis

import "math"

// mixture is an e-process: wealth spread over bets of different boldness and over the moments at which they begin. With e_g the
// factor of bet g at a poll, w_g its weight and π what begins at the poll, S_g ← (S_g + w_g·π)·e_g and E = ΣS_g + unspent. Each e_g has an
// expectation of at most 1 under the null whatever came before, so E has too, and by Ville's inequality P(E ever reaches 1/α) ≤ α: it may be
// looked at after every poll. Wealth that begins late finds a regression that sets in late.
type mixture struct {
	logW    []float64 // per bet, the log of its weight; shared
	logS    []float64 // per bet, -Inf before it begins
	unspent float64   // in [0,1]
	begun   bool
}

const (
	firstShare  = 0.8 // of the unspent wealth, at the first poll with evidence
	weightShare = 0.2 // of it, at a weight change
	mostEValue  = 1e300
)

func newMixture(logW []float64) mixture {
	m := mixture{logW: logW, logS: make([]float64, len(logW)), unspent: 1}
	for g := range m.logS {
		m.logS[g] = math.Inf(-1)
	}
	return m
}

// spend lets a share of the unspent wealth begin to bet, in [0,1].
func (m *mixture) spend(share float64) {
	pi := m.unspent * share
	if pi <= 0 {
		return
	}
	m.unspent -= pi
	log := math.Log(pi)
	for g, s := range m.logS {
		m.logS[g] = logAdd(s, log+m.logW[g])
	}
}

// begin spends what a poll spends, in [0,1]: the first poll another share than those after it.
func (m *mixture) begin(first, later float64) {
	if m.begun {
		m.spend(later)
		return
	}
	m.begun = true
	m.spend(first)
}

// multiply takes the logs of one poll's factors. With capped, a factor counts at most 1: what speaks against the null is dropped.
func (m *mixture) multiply(logE []float64, capped bool) {
	for g, le := range logE {
		if capped && le > 0 || math.IsNaN(le) { // numbers beyond all reason decide nothing
			continue
		}
		m.logS[g] += le
	}
}

// value is E, at least 0. It is 1 before any evidence.
func (m *mixture) value() float64 {
	sum := m.unspent
	for _, s := range m.logS {
		sum += math.Exp(s)
	}
	return min(mostEValue, sum)
}

// best is the log of the richest bet's wealth, -Inf before any has begun.
func (m *mixture) best() float64 {
	best := math.Inf(-1)
	for _, s := range m.logS {
		best = max(best, s)
	}
	return best
}

// refill spreads wealth that has begun over the bets by their weights. It keeps E: wealth may change its bets between polls.
func (m *mixture) refill(wealth float64) {
	for g, w := range m.logW {
		m.logS[g] = math.Log(wealth) + w
	}
}

// logAdd is ln(eˣ+eʸ).
func logAdd(x, y float64) float64 {
	if x < y {
		x, y = y, x
	}
	if y-x < -40 { // below the last bit of x
		return x
	}
	return x + math.Log1p(math.Exp(y-x))
}

// geometric is first, first·ratio, first·ratio² and so on.
func geometric(first, ratio float64, n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i], first = first, first*ratio
	}
	return out
}

// bell are the logs of weights for bets: a normal curve over the logarithm of the bet around the likely one, over a floor that leaves none
// out. They sum to 1.
func bell(bets []float64, likely, spread, floor float64) []float64 {
	weights := make([]float64, len(bets))
	for g, bet := range bets {
		z := math.Log(bet/likely) / spread
		weights[g] = math.Exp(-z*z/2) + floor
	}
	return logShares(weights)
}

// logShares are the logs of weights once they sum to 1.
func logShares(weights []float64) []float64 {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	out := make([]float64, len(weights))
	for g, w := range weights {
		out[g] = math.Log(w / sum)
	}
	return out
}
