package trials

import (
	"math"
	"slices"
	"time"

	"gonum.org/v1/gonum/stat"
	"gonum.org/v1/gonum/stat/distuv"

	"github.com/aviary-rollouts/aviary/analysis"
)

// judge compares the two versions' values of each minute by rank, every hour: as Kayenta's NetflixACAJudge does, at its defaults. A metric is
// bad if the canary's mean is on the bad side and the confidence interval of the shift between the versions lies wholly beyond a quarter of the
// estimated shift.
type judge struct {
	minute   *window
	lookback int // values that are compared, 0 for all since the start
	until    time.Duration
	stable   [][]float64 // by metric, oldest first
	canary   [][]float64
}

// The judge's defaults and rhythm.
const (
	judgeConfidence = 0.98
	judgeTolerance  = 0.25
	judgeRoot       = 1e-4 // to which shifts are found, as R's wilcox.test does
)

// newJudge looks until a time, over a number of minutes.
func newJudge(limits []limit, lookback int, until time.Duration) *judge {
	return &judge{
		minute: newWindow(limits), lookback: lookback, until: until,
		stable: make([][]float64, len(limits)), canary: make([][]float64, len(limits)),
	}
}

// Poll rolls back when any metric is bad, every hour.
func (r *judge) Poll(p analysis.Poll, _ int, at time.Duration) bool {
	if at > r.until {
		return false
	}
	r.minute.add(p)
	if at%time.Minute == 0 {
		r.push()
	}
	if at%hour != 0 {
		return false
	}
	for i, m := range r.minute.metrics {
		if isShifted(r.stable[i], r.canary[i], m.Better == analysis.Lower) {
			return true
		}
	}
	return false
}

// push closes a minute.
func (r *judge) push() {
	for i, m := range r.minute.metrics {
		stable, canary, ok := r.minute.values(i)
		if !ok {
			continue
		}
		if m.Kind == analysis.Ratio { // in percent, where the precision of the shift is enough
			stable, canary = 100*stable, 100*canary
		}
		r.stable[i], r.canary[i] = last(append(r.stable[i], stable), r.lookback), last(append(r.canary[i], canary), r.lookback)
	}
	r.minute.clear()
}

// last keeps the n newest, or all for 0.
func last(x []float64, n int) []float64 {
	if n > 0 && len(x) > n {
		return slices.Delete(x, 0, len(x)-n)
	}
	return x
}

// isShifted reports whether the canary is bad: too high, or too low.
func isShifted(stable, canary []float64, highIsBad bool) bool {
	if len(stable) < 2 || len(canary) < 2 {
		return false
	}
	s, c := slices.Sorted(slices.Values(stable)), slices.Sorted(slices.Values(canary))
	if !highIsBad { // mirrored
		s, c = mirrored(s), mirrored(c)
	}
	if stat.Mean(c, nil) < stat.Mean(s, nil) {
		return false
	}
	least := shift(c, s, distuv.UnitNormal.Quantile((1+judgeConfidence)/2), true)
	return least > 0 && least > judgeTolerance*math.Abs(shift(c, s, 0, false))
}

func mirrored(x []float64) []float64 {
	out := make([]float64, len(x))
	for i, v := range x {
		out[len(x)-1-i] = -v
	}
	return out
}

// shift is by how much x would have to be moved down for the rank statistic to fall to z, from below: where values are equal the statistic jumps,
// and what is a hair above the jump would be called a shift. Both are sorted.
func shift(x, y []float64, z float64, corrected bool) float64 {
	low, high := x[0]-y[len(y)-1], x[len(x)-1]-y[0]
	if rankStatistic(x, y, low, corrected) <= z {
		return low
	}
	for high-low > judgeRoot {
		mid := (low + high) / 2
		if rankStatistic(x, y, mid, corrected) > z {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}

// rankStatistic is the z-value of the rank sum of x−d against y, corrected for ties and, where asked, for continuity: Mann & Whitney, "On a test
// of whether one of two random variables is stochastically larger than the other" (1947), in the normal approximation. Both are sorted.
func rankStatistic(x, y []float64, d float64, corrected bool) float64 {
	n, m := float64(len(x)), float64(len(y))
	above, ties := 0.0, 0.0 // pairs in which x is above y, and Σt³−t over groups of equals
	for i, j := 0, 0; i < len(x) || j < len(y); {
		v := math.Inf(1)
		if i < len(x) {
			v = x[i] - d
		}
		if j < len(y) {
			v = min(v, y[j])
		}
		below := float64(j)
		i0, j0 := i, j
		for i < len(x) && x[i]-d == v {
			i++
		}
		for j < len(y) && y[j] == v {
			j++
		}
		ofX, ofY := float64(i-i0), float64(j-j0)
		above += ofX*below + ofX*ofY/2
		t := ofX + ofY
		ties += t*t*t - t
	}
	off := above - n*m/2
	if corrected {
		off -= math.Copysign(min(0.5, math.Abs(off)), off)
	}
	variance := n * m / 12 * (n + m + 1 - ties/((n+m)*(n+m-1)))
	if variance <= 0 {
		return 0
	}
	return off / math.Sqrt(variance)
}
