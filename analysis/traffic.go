package analysis

import (
	"fmt"
	"math"
)

// traffic tests whether the canary's share of traffic is what its weight says: a sample ratio mismatch, after Lindon & Malek, "Anytime-valid
// inference for multinomial count data" (2022). It bets on conversations that began, which is what the weight divides, where the source counts
// them; else on requests, which come in clumps and follow pinned conversations late, so they are given φ and slack.
type traffic struct {
	logS  [2][trafficBets]float64 // that the share is more, and less, than the weight allows
	units Requests                // lately: conversations or requests
	begun bool                    // conversations are counted
	off   bool                    // the share contradicts the weight
}

const (
	trafficBets  = 4
	trafficLevel = 0.001 // the chance of ever finding a mismatch where there is none, under one weight
	trafficSlack = 0.1   // of the share, relative
	requestSlack = 0.25
	requestPhi   = 20
	trafficUnits = 500 // after which what was seen lately counts half
	leastUnits   = 100 // before a mismatch may be over
)

// How much more, or less, than it should have the canary gets, as ln ρ.
var trafficHopes = [trafficBets]float64{0.1, 0.3, 0.8, 2}

func newTraffic() traffic {
	var t traffic
	for on := range t.logS {
		for g := range t.logS[on] {
			t.logS[on][g] = -math.Log(trafficBets)
		}
	}
	return t
}

// observe takes in a poll's units under a weight in (0, bake) basis points.
func (t *traffic) observe(p Poll) {
	units, slack, phi := p.Requests, requestSlack, float64(requestPhi)
	begun := p.Conversations.Stable+p.Conversations.Canary > 0
	if begun && !t.begun { // what was seen of requests does not count any more
		*t = newTraffic()
		t.begun = true
	}
	if t.begun {
		units, slack, phi = p.Conversations, trafficSlack, 1
	}
	n := units.Stable + units.Canary
	if !countable(units.Stable) || !countable(units.Canary) || n <= 0 {
		return
	}
	weight := float64(p.Weight) / bake
	t.units.Stable, t.units.Canary = t.units.Stable+units.Stable, t.units.Canary+units.Canary
	if t.units.Stable+t.units.Canary > 2*trafficUnits {
		t.units.Stable, t.units.Canary = t.units.Stable/2, t.units.Canary/2
	}
	if t.off {
		t.recover(weight, slack, phi)
		return
	}
	for on, share := range [2]float64{min(0.999, weight*(1+slack)), weight * (1 - slack)} {
		sign, e := float64(1-2*on), 0.0
		null := twoRate{a: share}
		s, ok := null.draw(n, units.Canary, 0, 0, 0)
		for g, hope := range trafficHopes {
			if ok {
				t.logS[on][g] += null.factor(&s, math.Expm1(sign*hope)) / phi
			}
			e += math.Exp(t.logS[on][g])
		}
		t.off = t.off || e >= 2/trafficLevel
	}
	if n := t.units.Stable + t.units.Canary; t.off && n > leastUnits { // what led to it is soon outweighed by what comes
		t.units.Stable, t.units.Canary = t.units.Stable*leastUnits/n, t.units.Canary*leastUnits/n
	}
}

// recover ends a mismatch once what was seen lately agrees with the weight, give or take two standard deviations.
func (t *traffic) recover(weight, slack, phi float64) {
	n := t.units.Stable + t.units.Canary
	sd := math.Sqrt(phi * weight * (1 - weight) / n)
	if n >= leastUnits && math.Abs(t.units.Canary/n-weight) <= weight*slack+2*sd {
		begun, units := t.begun, t.units
		*t = newTraffic()
		t.begun, t.units = begun, units
	}
}

// beginWeight forgets what was seen under another weight.
func (t *traffic) beginWeight() {
	begun := t.begun
	*t = newTraffic()
	t.begun = begun
}

// mismatch says what is wrong with the share, or nothing.
func (t *traffic) mismatch(weight int) string {
	if !t.off {
		return ""
	}
	unit := "requests"
	if t.begun {
		unit = "new conversations"
	}
	n := t.units.Stable + t.units.Canary
	return fmt.Sprintf("the canary got %.3g %% of about %.0f %s lately at a weight of %.4g %%", 100*t.units.Canary/max(1, n), n, unit, float64(weight)/100)
}
