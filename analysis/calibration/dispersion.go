package calibration

import (
	"math"
	"math/rand/v2"
	"time"

	"github.com/aviary-rollouts/aviary/analysis"
)

// How the history was split into two arms.
const (
	SplitUnits = "units" // units at random, anew for each block
	SplitSlots = "slots" // turns in time within each block, ABBA or BAAB
)

// Dispersion is a metric's overdispersion φ: by how much its counts vary more than those of independent requests.
type Dispersion struct {
	Phi    float64  `json:"phi"` // the largest of the blocks, at its upper confidence limit; at least 1. NaN where nothing could be measured
	Split  string   `json:"split,omitempty"`
	Blocks []Spread `json:"blocks,omitempty"`
}

// Spread is what blocks of one length said.
type Spread struct {
	Seconds float64 `json:"seconds"` // length of a block
	Phi     float64 `json:"phi"`     // the mean over the blocks
	Draws   int     `json:"draws"`   // pseudo-splits that say something new
	Upper   float64 `json:"upper"`   // Phi at its 95 % upper confidence limit
}

// blockLengths are how long events may cluster and still be seen to.
var blockLengths = [...]time.Duration{time.Minute, 10 * time.Minute, time.Hour, 6 * time.Hour}

const (
	leastBlocks = 8
	splits      = 16 // of the units, per block
	// slotsPerBlock and longestSlot say how long a turn in time is: short enough that traffic and rates, which a rollout's two versions share,
	// hardly change from one to the next.
	slotsPerBlock = 16
	longestSlot   = 5 * time.Minute
)

// dispersion measures φ as the mean over pseudo-splits of (x_c−θx)²/(xθ(1−θ)), x=x_c+x_s, θ=n_c/(n_c+n_s), for each length of block. The
// largest counts, times 1+1.645·√(2/splits): the 95 % limit of a mean of χ² of one degree of freedom.
//
// With several units each block assigns half of them at random. That sees what clusters within a unit, and leaves out what befalls all of
// them at once, as a rollout does. It does not see bursts of one user that spread over instances, so turns in time are asked too, for the
// shortest blocks that hold four. Units of users keep their own level: a lasting difference between users is the cohort spread, and not counted twice.
//
// With one unit the arms take turns in time, ABBA or BAAB, so that what changes steadily is shared. That sees bursts, whichever way they
// come, and can't tell a short trouble of everybody from one of a version's own: it errs on the side of too large a φ. What clusters for
// longer than a turn, of at most 5 minutes, it does not see.
func (h *History) dispersion(metric int, rng *rand.Rand) Dispersion {
	units := h.series(metric)
	v := plugIn{mean: h.Metrics[metric].Kind == analysis.Mean}
	all := together(units)
	if v.mean {
		v.variance = pollVariance(all)
	}
	d := Dispersion{Phi: math.NaN(), Split: SplitSlots}
	if len(units) > 1 {
		d.Split = SplitUnits
	}
	scattered := h.By == Instances // bursts over several instances are still to be looked for
	for _, length := range blockLengths {
		var m moments
		polls := int(length / h.Step)
		switch {
		case polls < 1:
		case d.Split == SplitUnits:
			m = v.splitUnits(units, polls, h.By == Users, rng)
		default:
			m = v.splitSlots(all, polls, h.Step)
		}
		if scattered {
			if slots := v.splitSlots(all, polls, h.Step); slots.blocks >= leastBlocks {
				scattered = false
				if !(slots.mean() <= m.mean()) { // true for NaN
					m = slots
				}
			}
		}
		if m.blocks < leastBlocks {
			continue
		}
		s := Spread{Seconds: length.Seconds(), Phi: m.mean(), Draws: m.draws}
		s.Upper = s.Phi * (1 + 1.645*math.Sqrt(2/float64(s.Draws)))
		d.Blocks = append(d.Blocks, s)
		if !(s.Upper <= d.Phi) { // true for NaN
			d.Phi = s.Upper
		}
	}
	if len(d.Blocks) > 0 {
		d.Phi = max(1, d.Phi)
	}
	return d
}

// moments sum up the ratios of squared differences to their plug-in variances.
type moments struct {
	sum    float64
	weight float64
	blocks int
	draws  int
}

func (m *moments) mean() float64 { return m.sum / m.weight }

// plugIn is what the variance of a difference would be of independent requests.
type plugIn struct {
	mean     bool
	variance float64 // of one observation, of means
}

// square is the squared difference between two arms and its plug-in variance; 0 where they can't be compared. θ is the first arm's share of
// what was to be expected.
func (v plugIn) square(nc, xc, ns, xs, theta float64) (d2, variance float64) {
	if nc <= 0 || ns <= 0 || !(theta > 0 && theta < 1) {
		return 0, 0
	}
	if v.mean {
		d := xc/nc - xs/ns
		return d * d, v.variance * (1/nc + 1/ns)
	}
	x := xc + xs
	d := xc - theta*x
	return d * d, x * theta * (1 - theta)
}

// splitUnits assigns half of the units at random, several times per block. With level, each unit is expected to keep its own.
func (v plugIn) splitUnits(units []series, polls int, level bool, rng *rand.Rand) moments {
	var m moments
	levels := make([]float64, len(units))
	for i, u := range units {
		levels[i] = ratio(total(u.x), total(u.n))
	}
	var block []part
	for from := 0; from+polls <= len(units[0].n); from += polls {
		block = block[:0]
		for i, u := range units {
			p := part{n: total(u.n[from : from+polls]), x: total(u.x[from : from+polls])}
			p.expected = p.n
			if level {
				p.expected *= levels[i]
			}
			if p.n > 0 { // the others were not there
				block = append(block, p)
			}
		}
		used := false
		for range splits {
			if d2, variance := v.split(block, level, rng); variance > 0 {
				m.sum += d2 / variance
				m.weight++
				used = true
			}
		}
		if used {
			m.blocks++
			m.draws += min(splits, len(block)-1)
		}
	}
	if level && m.blocks > 1 { // the levels were learnt from the same blocks
		m.sum *= float64(m.blocks) / float64(m.blocks-1)
	}
	return m
}

// part is what a unit did in a block.
type part struct{ n, x, expected float64 }

// split is one random split of a block.
func (v plugIn) split(block []part, level bool, rng *rand.Rand) (d2, variance float64) {
	var arms [2]part
	for i, unit := range rng.Perm(len(block)) {
		arm := &arms[0]
		if i < len(block)/2 {
			arm = &arms[1]
		}
		arm.n += block[unit].n
		arm.x += block[unit].x
		arm.expected += block[unit].expected
	}
	s, c := arms[0], arms[1]
	if v.mean && level { // take out what the units' own levels make of the difference
		return v.square(c.n, c.x-c.expected, s.n, s.x-s.expected, 0.5)
	}
	return v.square(c.n, c.x, s.n, s.x, ratio(c.expected, s.expected+c.expected))
}

// splitSlots gives the arms turns in time: of four slots in a row, the first and the last go to one arm. Which one is the same to the squared
// difference, so nothing is random.
func (v plugIn) splitSlots(all series, polls int, step time.Duration) moments {
	var m moments
	slot := max(1, min(polls/slotsPerBlock, int(longestSlot/step)))
	if polls < 4*slot {
		return m
	}
	for from := 0; from+polls <= len(all.n); from += polls {
		var sum, weight float64
		for at := from; at+4*slot <= from+polls; at += 4 * slot {
			var n, x [2]float64
			for i := range 4 {
				arm := ((i + 1) / 2) % 2 // 0 1 1 0
				a, b := at+i*slot, at+(i+1)*slot
				n[arm] += total(all.n[a:b])
				x[arm] += total(all.x[a:b])
			}
			d2, variance := v.square(n[1], x[1], n[0], x[0], ratio(n[1], n[0]+n[1]))
			if variance <= 0 {
				continue
			}
			m.draws++
			if v.mean {
				sum, weight = sum+d2/variance, weight+1
			} else {
				sum, weight = sum+d2, weight+variance
			}
		}
		if weight > 0 {
			m.sum += sum / weight
			m.weight++
			m.blocks++
		}
	}
	return m
}

// pollVariance is the variance of one observation, from the differences of successive polls' means, as in the rollout.
func pollVariance(all series) float64 {
	var sum, terms, lastN, lastMean float64
	for p, n := range all.n {
		if n <= 0 {
			continue
		}
		mean := all.x[p] / n
		if lastN > 0 {
			sum += (mean - lastMean) * (mean - lastMean) / (1/n + 1/lastN)
			terms++
		}
		lastN, lastMean = n, mean
	}
	return ratio(sum, terms)
}

func total(column []float64) float64 {
	s := 0.0
	for _, v := range column {
		s += v
	}
	return s
}

// ratio is a/b, or NaN where b is 0.
func ratio(a, b float64) float64 {
	if b == 0 {
		return math.NaN()
	}
	return a / b
}
