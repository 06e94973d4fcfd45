package analysis

import (
	"math"
	"math/rand/v2"
	"testing"
)

// try is one way to bet.
type try struct {
	name   string
	bets   []float64 // ln ρ
	logW   []float64
	first  float64 // of the wealth, at the first poll
	plain  bool    // as for Poisson counts, without the stable rate that is foretold
	plugIn float64 // of the wealth, on a bet that follows the ratio seen so far
}

// tries are the ways that were tried, in the order in which they were. The last one without a plug-in bet is the product's.
func tries() []try {
	even := func(n int) []float64 {
		w := make([]float64, n)
		for i := range w {
			w[i] = 1
		}
		return logShares(w)
	}
	eleven := geometric(0.05, 1.6, 11)
	return []try{
		{name: "eleven-even-bets", bets: eleven, logW: even(11), first: 0.5, plain: true},
		{name: "most-wealth-at-once", bets: eleven, logW: even(11), first: firstShare, plain: true},
		{name: "bernoulli", bets: eleven, logW: even(11), first: firstShare},
		{name: "wealth-where-likely", bets: eleven, logW: bell(eleven, 0.45, 0.8, 0.05), first: firstShare},
		{name: "plug-in-only", first: firstShare, plugIn: 1},
		{name: "plug-in-half", bets: worseBets, logW: worseWeights, first: firstShare, plugIn: 0.5},
		{name: "product", bets: worseBets, logW: worseWeights, first: firstShare},
	}
}

// requests is how many canary requests it takes until the evidence against a null reaches 500, at a rate of requests a poll and a weight of 5 %.
func (d try) requests(r *rand.Rand, t twoRate, pc, ps, perPoll float64) float64 {
	m := newMixture(append([]float64(nil), d.logW...))
	for g := range m.logW {
		m.logW[g] += math.Log(1 - d.plugIn)
	}
	plug := newMixture([]float64{math.Log(d.plugIn)})
	if d.plugIn == 0 {
		plug = newMixture(nil)
	}
	if d.plugIn == 1 {
		m = newMixture(nil)
	}
	t.counted = d.plain
	var seen past
	up, down := 2*1.3, 2.0 // the ratio of Mantel & Haenszel, drawn to a regression of 1.3
	for requests, poll := 0.0, 0; ; poll++ {
		nc, ns := poisson(r, perPoll*0.05), poisson(r, perPoll*0.95)
		xc, xs := binomial(r, nc, pc), binomial(r, ns, ps)
		requests += nc
		theta := 0.0
		if seen.n > 0 {
			theta = (seen.x + 1) / (seen.n + 2)
		}
		if s, ok := t.draw(nc, xc, ns, xs, theta); ok {
			m.begin(d.first, 1.0/40320)
			plug.begin(d.first, 1.0/40320)
			for g, bet := range d.bets {
				m.logS[g] += t.factor(&s, math.Expm1(bet))
			}
			if d.plugIn > 0 {
				hope := min(5, max(0.1, math.Log(up/down/t.b)))
				plug.logS[0] += t.factor(&s, math.Expm1(hope))
			}
			up, down = up+xc*ns/(nc+ns), down+xs*nc/(nc+ns)
		}
		seen.add(ns, xs)
		e := m.value() - m.unspent*d.plugIn + plug.value() - plug.unspent*(1-d.plugIn)
		if d.plugIn == 0 {
			e = m.value()
		}
		if d.plugIn == 1 {
			e = plug.value()
		}
		if e >= 500 {
			return requests
		}
	}
}

// BenchmarkTries prints, for each way to bet, the mean number of canary requests to detection over the theoretical limit ln(500)/KL: 10 requests/s in polls of 15 s at
// 5 %, 200 runs each. The limits are those of analysis/plan.Information.
func BenchmarkTries(b *testing.B) {
	cases := []struct {
		name   string
		t      twoRate
		pc, ps float64
		bound  float64 // canary requests
	}{
		{"errors-1.5x", twoRate{b: 1.1}, 0.015, 0.01, 10017},
		{"errors-2x", twoRate{b: 1.1}, 0.02, 0.01, 2222},
		{"errors-5x", twoRate{b: 1.1}, 0.05, 0.01, 183},
		{"failures-15%", twoRate{a: 0.02, b: 1}, 0.15, 0.1, 1633},
		{"failures-20%", twoRate{a: 0.02, b: 1}, 0.2, 0.1, 252},
	}
	for _, d := range tries() {
		b.Run(d.name, func(b *testing.B) {
			for b.Loop() {
				for i, c := range cases {
					sum := 0.0
					const runs = 200
					for run := range uint64(runs) {
						sum += d.requests(rand.New(rand.NewPCG(uint64(i), run)), c.t, c.pc, c.ps, 150)
					}
					b.ReportMetric(sum/runs/c.bound, c.name)
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}
