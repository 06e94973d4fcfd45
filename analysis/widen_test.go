package analysis

import (
	"math"
	"testing"
)

// TestWiden: no interval is shown that leaves out the estimate beside it.
func TestWiden(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for name, c := range map[string]struct{ change, lower, upper, wantLower, wantUpper float64 }{
		"within":                    {0.05, 0, 0.1, 0, 0.1},
		"above":                     {0.0303, nan, 0.02, nan, 0.0303},
		"below":                     {0.001, 0.01, 0.02, 0.001, 0.02},
		"from nothing to something": {math.Inf(1), 0.1, 0.5, 0.1, nan},
		"no estimate":               {nan, 0.1, 0.5, 0.1, 0.5},
		"no interval":               {0.1, nan, nan, nan, nan},
	} {
		f := Finding{Change: c.change, Lower: c.lower, Upper: c.upper}
		f.widen()
		same := func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
		if !same(f.Lower, c.wantLower) || !same(f.Upper, c.wantUpper) {
			t.Errorf("%s: %v to %v, want %v to %v", name, f.Lower, f.Upper, c.wantLower, c.wantUpper)
		}
	}
}
