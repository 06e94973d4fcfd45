package trials

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"gonum.org/v1/gonum/stat"

	"github.com/aviary-rollouts/aviary/analysis"
	"github.com/aviary-rollouts/aviary/internal/world"
)

// errorPoll is a poll of 1000 requests of each version.
func errorPoll(stable, canary float64) analysis.Poll {
	return analysis.Poll{
		Requests: analysis.Requests{Stable: 1000, Canary: 1000},
		Samples: map[string]analysis.Sample{"error_rate": {
			Stable: analysis.Counts{N: 1000, X: stable}, Canary: analysis.Counts{N: 1000, X: canary},
		}},
	}
}

// When the rules of other tools roll back, on polls that can be followed by hand: bad minutes are those with 12 instead of 10 errors.
func TestPeers(t *testing.T) {
	t.Parallel()
	ls := limits()[:1]
	always := func(int) bool { return true }
	for _, tt := range []struct {
		name string
		rule Rule
		bad  func(minute int) bool
		want time.Duration
	}{
		{"each poll, at once", &eachPoll{newWindow(ls), 100}, always, step},
		{"each poll, after the least requests", &eachPoll{newWindow(ls), 2500}, always, 3 * step},
		{"each poll, when the sum is beyond", &eachPoll{newWindow(ls), 100}, func(m int) bool { return m >= 2 }, 4*time.Minute + step},
		{"at the end, good", &atEnd{newWindow(ls), hour}, func(m int) bool { return m < 20 }, never},
		{"at the end, bad", &atEnd{newWindow(ls), hour}, func(m int) bool { return m < 40 }, hour},
		{"failed checks in a row", &failedChecks{window: newWindow(ls), every: time.Minute, threshold: 5}, always, 5 * time.Minute},
		{"failed checks now and then", &failedChecks{window: newWindow(ls), every: time.Minute, threshold: 5}, func(m int) bool { return m%10 == 0 }, 41 * time.Minute},
		{"failure limit", newFailureLimit(ls), always, 20 * time.Minute},
		{"peeking, when it is significant", newPeeking(ls, 0.01), always, 30 * step},
		{"peeking, nothing", newPeeking(ls, 0.01), func(int) bool { return false }, never},
		{"asymptotic, in the end", &asymptotic{newWindow(ls), 0.002}, always, never},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			at := never
			for i := range 240 { // an hour
				canary := 10.0
				if tt.bad(i / 4) {
					canary = 12
				}
				if now := time.Duration(i+1) * step; tt.rule.Poll(errorPoll(10, canary), 0, now) {
					at = now
					break
				}
			}
			if at != tt.want {
				t.Errorf("rolled back after %s, want %s", span(at), span(tt.want))
			}
		})
	}
}

// The asymptotic sequence rolls back what is far beyond the limit, and its width is that of the theorem.
func TestAsymptotic(t *testing.T) {
	t.Parallel()
	r := &asymptotic{newWindow(limits()[:1]), 0.002}
	polls := 0
	for polls = 1; !r.Poll(errorPoll(10, 20), 0, 0); polls++ {
		if polls > 1000 {
			t.Fatal("twice the errors are never rolled back")
		}
	}
	// By hand for n requests of each version at 1 and 2 %: the estimate of the change is 1, its variance (0.02·0.98/0.01² + 0.01·0.99·4/0.01²)/n,
	// which is 592/n; with ρ² = (l+ln(l+1))/5000 at l = −2 ln 0.004, the half-width is that of the theorem.
	half := func(n float64) float64 {
		l := -2 * math.Log(0.004)
		x := 2 * n * (l + math.Log(l+1)) / 5000
		return math.Sqrt(592 / n * 2 * (x + 1) / x * math.Log(math.Sqrt(x+1)/0.004))
	}
	if n := float64(1000 * polls); half(n) > 0.9 || half(n-1000) <= 0.9 {
		t.Errorf("rolled back after %d polls, with a half-width of %g, before %g", polls, half(n), half(n-1000))
	}
}

func TestRankStatistic(t *testing.T) {
	t.Parallel()
	// Six of each kind in the order T H H H H H T T T T T H: U is 11 of 36.
	tortoises, hares := []float64{1, 7, 8, 9, 10, 11}, []float64{2, 3, 4, 5, 6, 12}
	want := (25.0 - 18) / math.Sqrt(36*13/12.0)
	if got := rankStatistic(tortoises, hares, 0, false); math.Abs(got-want) > 1e-12 {
		t.Errorf("z = %g, want %g", got, want)
	}
	// With ties, against the definition by pairs and groups.
	x, y := []float64{1, 2, 2, 3, 5}, []float64{2, 2, 3, 4}
	above := 0.0
	for _, a := range x {
		for _, b := range y {
			switch {
			case a > b:
				above++
			case a == b:
				above += 0.5
			}
		}
	}
	ties := (4.0*4*4 - 4) + (2*2*2 - 2)
	want = (above - 10) / math.Sqrt(20/12.0*(10-ties/(9*8)))
	if got := rankStatistic(x, y, 0, false); math.Abs(got-want) > 1e-12 {
		t.Errorf("with ties z = %g, want %g", got, want)
	}
}

// Without a level the shift is Hodges and Lehmann's estimate: the median of all differences.
func TestShift(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 20 {
		x, y := make([]float64, 15), make([]float64, 11)
		for i := range x {
			x[i] = 0.7 + rng.NormFloat64()
		}
		for i := range y {
			y[i] = rng.NormFloat64()
		}
		var all []float64
		for _, a := range x {
			for _, b := range y {
				all = append(all, a-b)
			}
		}
		slices.Sort(x)
		slices.Sort(y)
		slices.Sort(all)
		if got, want := shift(x, y, 0, false), all[len(all)/2]; math.Abs(got-want) > judgeRoot {
			t.Errorf("shift %g, want %g", got, want)
		}
		if low := shift(x, y, 2, true); low >= stat.Quantile(0.5, stat.Empirical, all, nil) {
			t.Errorf("lower limit %g is above the estimate", low)
		}
	}
}

func TestJudge(t *testing.T) {
	t.Parallel()
	good := []float64{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}
	high := []float64{11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	for _, tt := range []struct {
		name           string
		stable, canary []float64
		highIsBad      bool
		want           bool
	}{
		{"the same", good, good, true, false},
		{"higher is worse", good, high, true, true},
		{"higher is better", good, high, false, false},
		{"lower is worse", high, good, false, true},
		{"too few", good, high[:1], true, false},
		{"mostly equal, with outliers", []float64{0, 0, 0, 1, 1, 1, 1, 1, 1, 1}, []float64{0, 0, 0, 0, 0, 0, 0, 0, 0, 50}, true, false},
	} {
		if got := isShifted(tt.stable, tt.canary, tt.highIsBad); got != tt.want {
			t.Errorf("%s: bad is %t", tt.name, got)
		}
	}
}

// The bound of the errors is that of two Poisson rates, nearly, with the stable one nearly known; that of a rating counts only requests that are
// rated; and within the limit there is none.
func TestBound(t *testing.T) {
	t.Parallel()
	w := world.Default()
	ls := limits()
	poisson := math.Log(500) / (0.01 * (2*math.Log(2/1.1) - 2 + 1.1))
	if got := bound(w, ls[0], 2, 0.002); got < poisson || got > 1.15*poisson {
		t.Errorf("errors × 2: %g requests, want a little more than %g", got, poisson)
	}
	rating := w.Metric("user_satisfaction")
	one := bound(w, ls[4], 0.8, 0.002)
	rating.Share = 0
	if got := bound(w, ls[4], 0.8, 0.002); math.Abs(10*got/one-1) > 1e-9 {
		t.Errorf("%g requests if all are rated, %g if a tenth is", got, one)
	}
	for _, l := range ls {
		if b := bound(w, l, l.factor(w.Metric(l.metric)), 0.01); !math.IsInf(b, 1) {
			t.Errorf("%s: %g requests at the limit, want no end", l.metric, b)
		}
	}
}

// What is exactly at the limits is neither within nor beyond them, once there is enough of it.
func TestAtLimits(t *testing.T) {
	t.Parallel()
	w := atLimits(at(50), limits())
	if err := w.Validate(); err != nil {
		t.Fatal(err)
	}
	sum := newWindow(limits())
	rng := rand.New(rand.NewPCG(3, 4))
	stream := w.Stream(rng)
	for i := range 20_000 {
		from := time.Duration(i) * step
		sum.add(stream.Poll(int64(i), from, from+step, 5000))
	}
	for i, l := range limits() {
		s, c, _ := sum.values(i)
		want := s * (1 + l.worse)
		if sum.metrics[i].Better == analysis.Higher {
			want = s * (1 - l.worse)
		}
		if math.Abs(c/want-1) > 0.01 {
			t.Errorf("%s: stable %g, canary %g, want %g", l.metric, s, c, want)
		}
	}
}
